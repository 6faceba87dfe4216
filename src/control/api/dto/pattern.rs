//! What names look like, as a program that sends requests must know it.

/// A DNS label.
pub(in super::super) const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// A user, or a team.
pub(in super::super) const PRINCIPAL: &str = "^(team:)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
