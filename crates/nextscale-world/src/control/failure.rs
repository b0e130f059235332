//! Failures: who sees one tells rank 0, rank 0 tells all, and only the first counts.

use super::{AFTER_REPORT, BEFORE_REPORT, Callback, LAST_WORD, Shared, shut};
use crate::link::Frame;
use crate::wire::{Writer, write_error};
use crate::{Error, orphan};

impl Shared {
    /// The failure behind a connection that broke: rank 0's word if it comes, else what was seen here.
    pub fn explain(&self, rank: usize, why: &str) -> Error {
        if let Some(error) = self.wait_for_failure(BEFORE_REPORT) {
            return error;
        }
        self.report(self.lost(rank, why));
        match self.wait_for_failure(AFTER_REPORT) {
            Some(error) => error,
            None => {
                let error = self.lost(rank, why);
                self.settle(error.clone());
                error
            }
        }
    }

    /// Asks rank 0 to end the job with this error.
    pub(super) fn report(&self, error: Error) {
        if self.rank == 0 {
            return self.fail(error);
        }
        let mut body = Writer::default();
        write_error(&mut body, &error);
        for (_, link) in self.links() {
            let _ = link.try_send(Frame::Report, &body.0, LAST_WORD);
        }
    }

    /// The job fails with what this process saw. Only the first failure counts.
    pub fn fail(&self, error: Error) {
        {
            let mut state = self.lock();
            if state.failing || state.ending || state.closed {
                return;
            }
            state.failing = true;
        }
        if self.rank == 0 {
            self.tell(&error);
        } else {
            self.report(error.clone());
        }
        self.settle(error);
    }

    /// Rank 0's word to all.
    fn tell(&self, error: &Error) {
        let mut body = Writer::default();
        write_error(&mut body, error);
        // One that is stopped may take nothing: it must not keep the others waiting.
        let mut links = self.links();
        links.sort_by_key(|(_, link)| link.silence() >= self.limits.silence);
        for (_, link) in links {
            let _ = link.try_send(Frame::Fail, &body.0, LAST_WORD);
        }
    }

    pub(super) fn settle(&self, error: Error) {
        let callbacks = {
            let mut state = self.lock();
            if state.failure.is_some() || state.closed {
                return;
            }
            state.failing = true;
            // Before this process can end because of it.
            if let (true, Error::Lost { rank, .. }) = (state.launched, &error) {
                orphan::blame(*rank);
            }
            state.failure = Some(error.clone());
            shut(&state.ring);
            self.changed.notify_all();
            std::mem::take(&mut state.callbacks)
        };
        for callback in callbacks {
            callback(&error);
        }
    }

    pub fn on_loss(&self, callback: Callback) {
        let failure = {
            let mut state = self.lock();
            match state.failure.clone() {
                Some(error) => error,
                None => return state.callbacks.push(callback),
            }
        };
        callback(&failure);
    }

    /// This process ends with an error of its own, which the others are told.
    pub fn leave(&self, told: Error, own: Error) {
        {
            let mut state = self.lock();
            if state.failing || state.ending || state.closed {
                return;
            }
            state.failing = true;
            // It knows already.
            state.callbacks.clear();
        }
        if self.rank == 0 {
            self.tell(&told);
        } else {
            self.report(told);
            // Rank 0 answers: until then the process must not end, lest the closed connection arrives first.
            let _ = self.wait_for_failure(LAST_WORD);
        }
        self.settle(own);
    }
}
