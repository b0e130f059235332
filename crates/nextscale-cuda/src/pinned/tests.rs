use super::*;
use crate::dry::tests::dry_gpu;
use crate::pool::DeviceBuffer;
use crate::upload::CopyStream;

fn refuse(gpu: &Gpu, what: &[Ask]) {
    gpu.dry().unwrap().script.lock().unwrap().refused = what.to_vec();
}

fn asked(gpu: &Gpu) -> Vec<Ask> {
    std::mem::take(&mut gpu.dry().unwrap().script.lock().unwrap().asked)
}

/// Free blocks of a GPU.
fn free(gpu: &Gpu) -> Vec<usize> {
    let all = FREE.lock().unwrap();
    let of = |((ordinal, _), blocks): (&(usize, usize), &Vec<usize>)| {
        (*ordinal == gpu.info().ordinal).then(|| blocks.clone())
    };
    all.iter().filter_map(of).flatten().collect()
}

const COPY: Ask = Ask::Copy(0);

/// A copy that was asked for, but could not be marked or was itself refused, may be under way: its memory is handed out again
/// only where a wait for everything says that it is not.
#[test]
fn memory_of_a_copy_without_a_mark_is_given_back_only_after_a_wait() {
    for refused in [Ask::Mark, COPY] {
        let gpu = dry_gpu();
        let to = DeviceBuffer::new(gpu, 100).unwrap().address();
        refuse(gpu, &[refused]);
        assert!(upload(gpu, &[7; 100], to).is_err());
        assert_eq!(asked(gpu).last(), Some(&Ask::Wait));
        assert_eq!(
            free(gpu).len(),
            1,
            "the wait says that nothing is under way"
        );
        refuse(gpu, &[refused, Ask::Wait]);
        assert!(upload(gpu, &[7; 100], to).is_err());
        assert_eq!(
            free(gpu),
            [0; 0],
            "nobody knows: it is never handed out again"
        );

        let x = DeviceBuffer::new(gpu, 40).unwrap();
        refuse(gpu, &[refused]);
        assert!(gpu.copy_to_host(DevicePtr(&x, 0), 40).is_err());
        assert_eq!(free(gpu).len(), 1);
        refuse(gpu, &[refused, Ask::Wait]);
        assert!(gpu.copy_to_host(DevicePtr(&x, 0), 40).is_err());
        assert_eq!(free(gpu), [0; 0]);
    }
}

#[test]
fn memory_that_values_come_to_is_given_back_only_when_they_are_there() {
    let gpu = dry_gpu();
    let x = DeviceBuffer::new(gpu, 40).unwrap();
    let pending = gpu.copy_to_host(DevicePtr(&x, 0), 40).unwrap();
    assert_eq!(free(gpu), [0; 0]);
    drop(pending);
    assert_eq!(free(gpu).len(), 1);
    let pending = gpu.copy_to_host(DevicePtr(&x, 0), 40).unwrap();
    assert_eq!(free(gpu), [0; 0], "the block is used again");
    refuse(gpu, &[Ask::Wait]);
    assert!(pending.wait().is_err());
    drop(pending);
    assert_eq!(free(gpu), [0; 0]);
}

/// Small copies go by way of page-locked memory, so that the caller's may change at once; large ones are waited for.
#[test]
fn ordinary_memory_is_never_left_to_a_copy_under_way() {
    let gpu = dry_gpu();
    let to = DeviceBuffer::new(gpu, 2 << 20).unwrap();
    let bytes = vec![3u8; ASIDE + 1];
    let own = bytes.as_ptr() as usize;
    upload(gpu, &bytes[..ASIDE], to.address()).unwrap();
    let small = asked(gpu);
    let from = small.iter().find_map(|a| match a {
        Ask::Copy(from) => Some(*from),
        _ => None,
    });
    assert!(from.is_some_and(|from| from != own), "{small:?}");
    assert_eq!(small.last(), Some(&Ask::Mark));
    upload(gpu, &bytes, to.address()).unwrap();
    assert_eq!(asked(gpu), [Ask::Copy(own), Ask::Wait]);
    refuse(gpu, &[COPY]);
    assert!(upload(gpu, &bytes, to.address()).is_err());
    assert_eq!(asked(gpu), [Ask::Copy(own), Ask::Wait]);
}

/// Batches that travel beside the work: a slot whose copy can't be marked is kept from others until both streams are done.
#[test]
fn a_slot_goes_back_only_when_its_copies_are_done() {
    let gpu = dry_gpu();
    let mut copies = CopyStream::new(gpu).unwrap();
    let send = |copies: &mut CopyStream| copies.send(&[&[7; 12]], |_, _| Ok::<_, crate::Error>(()));
    send(&mut copies).unwrap();
    refuse(gpu, &[Ask::Mark]);
    assert!(send(&mut copies).is_err());
    refuse(gpu, &[]);
    send(&mut copies).unwrap();
    refuse(gpu, &[COPY]);
    assert!(send(&mut copies).is_err());
    assert_eq!(free(gpu).len(), 1, "the second slot's memory");
    let used = gpu.usage().used;
    refuse(gpu, &[COPY, Ask::Wait]);
    // The first slot's earlier copy is waited for first, and stays.
    assert!(send(&mut copies).is_err());
    assert_eq!((free(gpu).len(), gpu.usage().used), (1, used));
    drop(copies);
    assert_eq!(free(gpu).len(), 1, "what nobody waited for is lost");
    assert_eq!(gpu.usage().used, used);
    let mut copies = CopyStream::new(gpu).unwrap();
    assert!(send(&mut copies).is_err());
    drop(copies);
    assert_eq!(free(gpu), [0; 0], "its copy may be under way for ever");
}
