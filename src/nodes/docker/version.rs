//! Versions of Docker's API, and which of them both sides speak.

use std::fmt;
use std::str::FromStr;

/// A version of the API, such as 1.41.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// Docker 19.03: what is asked here is older, and nothing before it gets security fixes.
    pub const OLDEST: Self = Self { major: 1, minor: 40 };
    /// The newest whose changes were read: Docker 27.3. Docker 29 takes 1.44 and newer.
    pub const OURS: Self = Self { major: 1, minor: 47 };

    /// The version to speak with a daemon that takes those from `oldest` to `newest`.
    ///
    /// # Errors
    /// [`Parted`].
    pub(super) fn agreed(oldest: Self, newest: Self) -> Result<Self, Parted> {
        if newest < Self::OLDEST {
            return Err(Parted::TooOld(newest));
        }
        if oldest > Self::OURS {
            return Err(Parted::TooNew(oldest));
        }
        Ok(newest.min(Self::OURS))
    }
}

/// Why there is no version that both sides speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Parted {
    /// The newest of the daemon's.
    TooOld(ApiVersion),
    /// The oldest of the daemon's.
    TooNew(ApiVersion),
}

/// A text that is no version.
#[derive(Debug)]
pub struct NoVersion(pub(super) String);

impl FromStr for ApiVersion {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        // Two bare numbers: what it says goes into paths.
        let number = |text: &str| {
            let digits = (1..=4).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten()
        };
        let parts = text.split_once('.');
        parts
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .ok_or_else(|| NoVersion(text.to_owned()))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ApiVersion {
        text.parse().unwrap()
    }

    #[test]
    fn both_sides_speak_the_newest_that_both_know() {
        let agreed = |oldest, newest| ApiVersion::agreed(version(oldest), version(newest));
        assert_eq!(agreed("1.12", "1.41"), Ok(version("1.41")));
        assert_eq!(agreed("1.44", "1.52"), Ok(ApiVersion::OURS));
        assert_eq!(agreed("1.12", "1.39"), Err(Parted::TooOld(version("1.39"))));
        assert_eq!(agreed("1.48", "2.3"), Err(Parted::TooNew(version("1.48"))));
        assert!(version("1.9") < version("1.40"), "numbers, not texts");
    }

    #[test]
    fn nothing_but_two_numbers_is_a_version() {
        for text in
            ["", "1", "1.", ".1", "1.41/../x", "1.+4", "1.2.3", "1.65536", "-1.2", "1.00041"]
        {
            assert!(text.parse::<ApiVersion>().is_err(), "{text}");
        }
    }
}
