//! The one source of randomness, injected so that a whole session can be replayed from a seed.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Fills buffers with random bytes. Tests pass a seeded one.
pub trait Entropy {
    /// Overwrites all of `out`.
    fn fill(&mut self, out: &mut [u8]);
}

/// The crypto provider's generator.
#[derive(Debug, Default)]
pub struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    #[expect(clippy::expect_used, reason = "without randomness no key is safe: end the process")]
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill(out).expect("the system's random generator failed");
    }
}
