//! TensorBoard's event files.

use super::Observer;
use crate::Result;
use crate::log::tensorboard::EventWriter;
use crate::run::event::Event;
use std::path::Path;

/// Writes scalars, pictures and the options for TensorBoard.
pub(crate) struct TensorBoard {
    file: EventWriter,
    /// Every so many steps scalars are written, beside the iterations at which the reference writes them.
    every: Option<u64>,
}

/// Whether the reference writes the scalars of iteration `it`, counted from 0: of the first and of every 500th.
fn is_due(it: u64) -> bool {
    it == 0 || (it + 1).is_multiple_of(500)
}

impl TensorBoard {
    /// Opens a new file in `dir`. `resumed`: the iterations that a run goes on after; what was written of later ones is taken back.
    ///
    /// # Errors
    /// When the file can't be made.
    pub(crate) fn create(dir: &Path, resumed: Option<u64>, every: Option<u64>) -> Result<Self> {
        let file = EventWriter::create(dir, resumed.map(|it| it as i64))?;
        Ok(Self { file, every })
    }
}

impl Observer for TensorBoard {
    fn see(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Started(s) => self.file.text(s.iteration as i64, "args", s.options),
            Event::Iteration(i) => {
                let asked = i.step.zip(self.every).is_some_and(|(n, e)| n % e == 0);
                if !is_due(i.number) && !asked {
                    return Ok(());
                }
                self.file.scalars(i.number as i64, i.scalars.known())
            }
            Event::Evaluated(e) => self.file.scalars(e.iteration as i64, e.scalars.known()),
            Event::Epoch(e) => {
                self.file.scalars(e.number as i64, e.scalars.known())?;
                self.file.flush()
            }
            Event::Picture(p) => {
                let (width, height) = (p.width as u32, p.height as u32);
                self.file.image(p.at as i64, p.name, width, height, p.rgb)?;
                self.file.flush()
            }
            Event::Saving => self.file.flush(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_iterations() {
        let due: Vec<u64> = (0..1100).filter(|&it| is_due(it)).collect();
        assert_eq!(due, [0, 499, 999]);
    }
}
