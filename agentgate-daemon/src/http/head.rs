//! What heads of every version have in common.

use http::Version;

/// The target cannot be sent to the approved destination.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request target cannot be carried to the origin")]
pub struct BadTarget;

/// The word for the record.
#[must_use]
pub fn version_str(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/?",
    }
}
