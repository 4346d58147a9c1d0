//! So many at once, the rest in order: for `fetch` and `run`.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

type Job = Box<dyn FnOnce()>;

/// Starts jobs up to a number at once. The owner says when one has finished. The queue is bounded by whoever fills it
/// (a job is a request of a script, and those are counted).
pub struct Lane {
    max: usize,
    running: Cell<usize>,
    waiting: RefCell<VecDeque<Job>>,
}

impl Lane {
    /// `max`: at least one runs.
    pub fn new(max: usize) -> Lane {
        Lane { max: max.max(1), running: Cell::new(0), waiting: RefCell::default() }
    }

    pub fn start(&self, job: Job) {
        if self.running.get() == self.max {
            self.waiting.borrow_mut().push_back(job);
        } else {
            self.running.set(self.running.get() + 1);
            job();
        }
    }

    pub fn handle_finished(&self) {
        let next = self.waiting.borrow_mut().pop_front();
        match next {
            Some(job) => job(),
            None => self.running.set(self.running.get().saturating_sub(1)),
        }
    }

    /// Drops what has not started.
    pub fn clear(&self) {
        self.waiting.take();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn jobs_beyond_the_number_wait_in_order() {
        let (lane, started) = (Lane::new(2), Rc::new(RefCell::new(Vec::new())));
        let job = |i| {
            let started = Rc::clone(&started);
            Box::new(move || started.borrow_mut().push(i))
        };
        (0..4).for_each(|i| lane.start(job(i)));
        assert_eq!(*started.borrow(), [0, 1]);
        lane.handle_finished();
        assert_eq!(*started.borrow(), [0, 1, 2]);
        lane.handle_finished();
        lane.handle_finished();
        lane.handle_finished();
        lane.start(job(9));
        assert_eq!(*started.borrow(), [0, 1, 2, 3, 9]);
    }
}
