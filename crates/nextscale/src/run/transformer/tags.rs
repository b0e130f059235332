//! Names of the TensorBoard scalars, those of the reference.

/// Smallest learning rate of all parameter groups.
pub(super) const LR_MIN: &str = "AR_opt_lr/lr_min/sche_tlr";
/// Largest learning rate of all parameter groups.
pub(super) const LR_MAX: &str = "AR_opt_lr/lr_max/sche_tlr";
/// Largest weight decay of all parameter groups.
pub(super) const WD_MAX: &str = "AR_opt_wd/wd_max/sche_twd";
/// Smallest weight decay above 0 of all parameter groups.
pub(super) const WD_MIN: &str = "AR_opt_wd/wd_min/sche_twd";
/// log2 of the loss scale, in float16 training.
pub(super) const SCALE_LOG2: &str = "AR_opt_grad/fp16/scale_log2";
/// Global gradient norm before clipping; on stepping iterations.
pub(super) const GRAD_NORM: &str = "AR_opt_grad/grad/grad_norm";
/// The norm that gradients are clipped to.
pub(super) const GRAD_CLIP: &str = "AR_opt_grad/grad/grad_clip";
/// Share of the codebook that the predictions use, in percent.
pub(super) const VOCABULARY_USAGE: &str = "AR_iter_loss/z_voc_usage";
/// Image side that the highest active scale stands for.
pub(super) const STAGE_RESOLUTION: &str = "AR_iter_schedule/prog_a_reso";
/// The highest active scale; −1 when all are.
pub(super) const STAGE: &str = "AR_iter_schedule/prog_si";
/// The ramp of the newest scale's loss weight.
pub(super) const STAGE_RAMP: &str = "AR_iter_schedule/prog_wp";
/// Training loss over all tokens, by epoch.
pub(super) const EPOCH_LOSS_MEAN: &str = "AR_ep_loss/L_mean";
/// Training loss over the last scale, by epoch.
pub(super) const EPOCH_LOSS_TAIL: &str = "AR_ep_loss/L_tail";
/// Training accuracy over all tokens in percent, by epoch.
pub(super) const EPOCH_ACC_MEAN: &str = "AR_ep_loss/acc_mean";
/// Training accuracy over the last scale in percent, by epoch.
pub(super) const EPOCH_ACC_TAIL: &str = "AR_ep_loss/acc_tail";
/// Validation loss over all tokens, by epoch.
pub(super) const VAL_LOSS_MEAN: &str = "AR_ep_loss/vL_mean";
/// Validation loss over the last scale, by epoch.
pub(super) const VAL_LOSS_TAIL: &str = "AR_ep_loss/vL_tail";
/// Validation accuracy over all tokens in percent, by epoch.
pub(super) const VAL_ACC_MEAN: &str = "AR_ep_loss/vacc_mean";
/// Validation accuracy over the last scale in percent, by epoch.
pub(super) const VAL_ACC_TAIL: &str = "AR_ep_loss/vacc_tail";
/// Loss of a model that knows nothing, by epoch.
pub(super) const CHANCE: &str = "AR_ep_loss/chance";
/// Hours that the rest of the run will take, by epoch.
pub(super) const REST_HOURS: &str = "AR_z_burnout/rest_hours";

/// A number of samples that were judged, by epoch.
pub(super) fn score(name: &str) -> String {
    format!("AR_ep_score/{name}")
}

/// Loss of the scale that stands for images of side `resolution`.
pub(super) fn loss_at(resolution: usize) -> String {
    format!("AR_iter_loss/L_{resolution}")
}

/// Validation loss of the scale that stands for images of side `resolution`, by epoch.
pub(super) fn val_loss_at(resolution: usize) -> String {
    format!("AR_ep_loss/vL_{resolution}")
}

/// Accuracy in percent of the scale that stands for images of side `resolution`.
pub(super) fn accuracy_at(resolution: usize) -> String {
    format!("AR_iter_loss/acc_{resolution}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_resolution() {
        assert_eq!(loss_at(256), "AR_iter_loss/L_256");
        assert_eq!(accuracy_at(16), "AR_iter_loss/acc_16");
    }
}
