//! The signatures of tokens, checked by the library that TLS uses anyway, so that there is one of its kind. It only
//! checks: this program signs no tokens.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, Result},
    signature::{self, Verifier},
};
use ring::{
    hmac,
    signature::{
        self as algorithms, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};

/// Lets the token library use this, unless the program has chosen something else before.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: refuse_to_sign,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    // An error says that there is one already, which is as good.
    let _ = PROVIDER.install_default();
}

fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(Error::from(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(Checker { algorithm: *algorithm, key: key.clone() }))
}

struct Checker {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Checker {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Checker {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        if self.fits(message, signature) { Ok(()) } else { Err(signature::Error::new()) }
    }
}

impl Checker {
    fn fits(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::HS256 => self.hmac(hmac::HMAC_SHA256, message, signature),
            Algorithm::HS384 => self.hmac(hmac::HMAC_SHA384, message, signature),
            Algorithm::HS512 => self.hmac(hmac::HMAC_SHA512, message, signature),
            Algorithm::RS256 => self.rsa(&algorithms::RSA_PKCS1_2048_8192_SHA256, message, signature),
            Algorithm::RS384 => self.rsa(&algorithms::RSA_PKCS1_2048_8192_SHA384, message, signature),
            Algorithm::RS512 => self.rsa(&algorithms::RSA_PKCS1_2048_8192_SHA512, message, signature),
            Algorithm::PS256 => self.rsa(&algorithms::RSA_PSS_2048_8192_SHA256, message, signature),
            Algorithm::PS384 => self.rsa(&algorithms::RSA_PSS_2048_8192_SHA384, message, signature),
            Algorithm::PS512 => self.rsa(&algorithms::RSA_PSS_2048_8192_SHA512, message, signature),
            Algorithm::ES256 => self.ecdsa(&algorithms::ECDSA_P256_SHA256_FIXED, message, signature),
            Algorithm::ES384 => self.ecdsa(&algorithms::ECDSA_P384_SHA384_FIXED, message, signature),
            Algorithm::EdDSA => self.plain(&algorithms::ED25519, message, signature),
            _ => false,
        }
    }

    fn hmac(&self, algorithm: hmac::Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let DecodingKeyKind::SecretOrDer(secret) = self.key.kind() else { return false };
        let is_secret = self.key.family() == AlgorithmFamily::Hmac;
        is_secret && hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).is_ok()
    }

    fn rsa(&self, algorithm: &'static RsaParameters, message: &[u8], signature: &[u8]) -> bool {
        match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature).is_ok()
            }
            DecodingKeyKind::SecretOrDer(_) => self.plain(algorithm, message, signature),
        }
    }

    fn ecdsa(&self, algorithm: &'static EcdsaVerificationAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        self.plain(algorithm, message, signature)
    }

    fn plain(&self, algorithm: &'static dyn VerificationAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        let DecodingKeyKind::SecretOrDer(key) = self.key.kind() else { return false };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}
