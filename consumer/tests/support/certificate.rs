//! A certificate of a server on loopback, made by the test: it signed itself, so that it is its own
//! authority.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What a server shows, and what a client must be given to believe it.
pub struct Certificate {
    pub config: Arc<ServerConfig>,
    pub pem: String,
}

/// A new one, for `localhost` and 127.0.0.1, signed by `P-256` and nobody else.
pub fn certificate() -> Certificate {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).expect("the key");
    let content = content(key.public_key().as_ref());
    let signature = key.sign(&random, &content).expect("signed");
    let der = sequence(&[&content, &ecdsa_with_sha256(), &bits(signature.as_ref())]);
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(&der)
    );
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(der)], key)
        .expect("a certificate");
    Certificate { config: Arc::new(config), pem }
}

/// What is signed. Source: RFC 5280, 4.1.
fn content(public_key: &[u8]) -> Vec<u8> {
    let name = {
        let common_name = sequence(&[&[0x06, 3, 0x55, 4, 3], &tagged(0x0c, b"AKLight's test")]);
        sequence(&[&tagged(0x31, &common_name)])
    };
    let validity = sequence(&[&tagged(0x17, b"200101000000Z"), &tagged(0x17, b"491231235959Z")]);
    let p256 = sequence(&[
        &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1],
        &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
    ]);
    let alternative_names = {
        let names = sequence(&[&tagged(0x82, b"localhost"), &tagged(0x87, &[127, 0, 0, 1])]);
        sequence(&[&[0x06, 3, 0x55, 0x1d, 17], &tagged(0x04, &names)])
    };
    sequence(&[
        // Version 3, and a serial number.
        &tagged(0xa0, &[0x02, 1, 2]),
        &[0x02, 1, 1],
        &ecdsa_with_sha256(),
        &name,
        &validity,
        &name,
        &sequence(&[&p256, &bits(public_key)]),
        &tagged(0xa3, &sequence(&[&alternative_names])),
    ])
}

fn ecdsa_with_sha256() -> Vec<u8> {
    sequence(&[&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tagged(0x03, &[&[0], bytes].concat())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

/// A value in DER.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short").to_be_bytes();
    let length = match length {
        [0, short @ ..0x80] => vec![short],
        [0, long] => vec![0x81, long],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag][..], &length, value].concat()
}
