//! Ed25519 keys (RFC 8032) as files hold them: PEM, as RFC 8410 has it, which openssl reads too.

use std::fmt;

use aws_lc_rs::{
    rand,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};

use super::text::{Hex, from_pem, to_pem};

/// Names itself: statements hold whole keys.
pub type PublicKey = Hex<32>;
/// Of a statement.
pub(super) type Signature = Hex<64>;

/// DER of a SubjectPublicKeyInfo before the 32 bytes of the key.
const PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER of a PKCS #8 private key before the 32 bytes of the seed.
const PRIVATE: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// A key that is none, or cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is no key of this kind.
    #[error("it is no Ed25519 key in PEM")]
    Format,
    /// The system's random numbers or the library failed.
    #[error("the key cannot be used")]
    Unusable,
}

/// Signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl SigningKey {
    /// A key that nobody had, and the text of its file.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] where the system gives no random bytes.
    pub fn generate() -> Result<(Self, String), KeyError> {
        let mut seed = [0; 32];
        rand::fill(&mut seed).map_err(|_| KeyError::Unusable)?;
        let mut der = PRIVATE.to_vec();
        der.extend_from_slice(&seed);
        Ok((Self::of(&seed)?, to_pem(PRIVATE_LABEL, &der)))
    }

    fn of(seed: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Unusable)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Unusable)?;
        Ok(Self { pair, public: Hex(public) })
    }

    /// The key of a file's text.
    ///
    /// # Errors
    /// [`KeyError`] where it is none.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = from_pem(PRIVATE_LABEL, pem).ok_or(KeyError::Format)?;
        let seed = der.strip_prefix(&PRIVATE).filter(|seed| seed.len() == 32).ok_or(KeyError::Format)?;
        Self::of(seed)
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Signature, KeyError> {
        let signature = self.pair.try_sign(message).map_err(|_| KeyError::Unusable)?;
        signature.as_ref().try_into().map(Hex).map_err(|_| KeyError::Unusable)
    }
}

/// Whether this is that key's signature of the message.
pub(super) fn is_signed(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, &key.0).verify(message, &signature.0).is_ok()
}

impl Hex<32> {
    /// The key of a file's text, or of 64 digits of hex.
    ///
    /// # Errors
    /// [`KeyError::Format`].
    pub fn read(text: &str) -> Result<PublicKey, KeyError> {
        if let Ok(key) = text.trim().parse() {
            return Ok(key);
        }
        let der = from_pem(PUBLIC_LABEL, text).ok_or(KeyError::Format)?;
        let key = der.strip_prefix(&PUBLIC).ok_or(KeyError::Format)?;
        key.try_into().map(Hex).map_err(|_| KeyError::Format)
    }

    /// The text of a file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut der = PUBLIC.to_vec();
        der.extend_from_slice(&self.0);
        to_pem(PUBLIC_LABEL, &der)
    }
}
