//! Limits how many bytes a client reads: all responses share one limit, however many queries run at
//! once and whatever length each response claims.

use std::{
    io::Read as _,
    sync::atomic::{AtomicU64, Ordering},
};

use ureq::{Body, http::Response};

/// Most bytes of all responses that one client reads. For 14,000 hosts a response has
/// about 3 MB, and a round has some 25.
pub(super) const MOST: u64 = 256 << 20;

/// Bytes that are requested at once.
const PIECE: usize = 64 << 10;

/// The bytes that may still be read.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    left: AtomicU64,
}

impl Budget {
    pub(super) const fn new(limit: u64) -> Self {
        Self {
            limit,
            left: AtomicU64::new(limit),
        }
    }

    /// Reads a whole body.
    ///
    /// # Errors
    /// `BodyExceedsLimit`: together with what was read before, it exceeds the limit.
    pub(super) fn read(&self, response: &mut Response<Body>) -> Result<Vec<u8>, ureq::Error> {
        let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut body = Vec::new();
        let mut piece = vec![0; PIECE];
        loop {
            let read = reader.read(&mut piece)?;
            if read == 0 {
                return Ok(body);
            }
            self.take(read as u64)?;
            body.extend_from_slice(piece.get(..read).unwrap_or_default());
        }
    }

    fn take(&self, bytes: u64) -> Result<(), ureq::Error> {
        let less = |left: u64| left.checked_sub(bytes);
        match self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(ureq::Error::BodyExceedsLimit(self.limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(bytes: usize) -> Response<Body> {
        Response::new(Body::builder().data(vec![b'x'; bytes]))
    }

    #[test]
    fn responses_have_one_limit_together() {
        let budget = Budget::new(300_000);
        for _ in 0..2 {
            assert_eq!(budget.read(&mut response(100_000)).unwrap().len(), 100_000);
        }
        let error = budget.read(&mut response(100_001)).unwrap_err();
        assert!(
            matches!(error, ureq::Error::BodyExceedsLimit(300_000)),
            "{error}"
        );
    }

    #[test]
    fn at_once_they_are_not_longer_than_one_after_the_other() {
        let budget = Budget::new(1_000_000);
        let whole = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| budget.read(&mut response(100_000)).is_ok()))
                .collect();
            readers
                .into_iter()
                .filter_map(|reader| reader.join().unwrap().then_some(()))
                .count()
        });
        assert!(whole <= 10, "{whole} of 100,000 bytes within 1,000,000");
    }
}
