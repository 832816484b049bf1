//! Signed links: whoever has one can play what it names, until it expires.
//!
//! A token holds what it allows (a stretch of one stream, or one export) and when that ends, with an HMAC-SHA256 over both: nothing
//! has to be stored for it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use sightline_proto::ids::Kind;
use subtle::ConstantTimeEq;
use url::{Url, form_urlencoded};
use uuid::Uuid;

use crate::names::{slug_part, uuid};

/// Before and after what a link is for, in microseconds: people want to see what led to it.
pub const PADDING_US: i64 = 2_000_000;

/// The first byte of a token. Written out, each begins with an "A", which no slug does.
const VERSION: u8 = 1;
/// How much of the HMAC a token holds: 128 bits.
const MAC: usize = 16;
/// Characters of a slug that nobody can guess, of 5 bits each.
const UNGUESSABLE: usize = 16;

/// A stretch of one stream's recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// The stream.
    pub rtstream: String,
    /// Where it starts, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// Where it ends; none: goes on.
    pub end_us: Option<i64>,
}

/// Links to a clip.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClipLinks {
    /// The playlist.
    pub stream_url: String,
    /// The player page.
    pub player_url: String,
    /// A picture of its start.
    pub thumbnail_url: String,
}

/// Why a token is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not one of this platform's, or changed.
    #[error("this link is not valid")]
    Invalid,
    /// It has stopped working.
    #[error("this link has expired")]
    Expired,
}

/// Makes and checks links. Clones share the key.
#[derive(Clone)]
pub struct Links(Arc<Signer>);

struct Signer {
    /// Ends with a slash.
    base: String,
    key: hmac::Key,
    lifetime_us: Option<i64>,
}

/// What a token is for: one for a playlist opens no page, and so on.
#[derive(Clone, Copy)]
enum Use {
    Clip = 1,
    Page = 2,
    Export = 3,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Links(…)")
    }
}

impl Links {
    /// Links below the public address of the gateway, for example `https://video.example/`, signed with `key` (a secret of 32
    /// bytes) and working for `lifetime_us` from when they are made; none: for ever.
    pub fn new(public: &Url, key: &[u8; 32], lifetime_us: Option<i64>) -> Self {
        let mut public = public.clone();
        public.set_query(None);
        public.set_fragment(None);
        Self(Arc::new(Signer {
            base: format!("{}/", public.as_str().trim_end_matches('/')),
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            lifetime_us,
        }))
    }

    /// The public address of the gateway, ending with a slash.
    pub fn base(&self) -> &str {
        &self.0.base
    }

    /// When links made now stop working.
    pub fn expires_us(&self, now_us: i64) -> Option<i64> {
        let lifetime = self.0.lifetime_us?;
        // 0 means never.
        Some(now_us.saturating_add(lifetime).max(1))
    }

    /// Links to a clip, whose player page has no title: `<public>/manifests/<rtstream>/<token>/stream.m3u8`,
    /// `<public>/watch?v=<token that names the stream too>`, `<public>/manifests/<rtstream>/<token>/<start_us>.jpg`. All are empty
    /// when `rtstream` is no id of a stream.
    pub fn clip(&self, clip: &Clip, now_us: i64) -> ClipLinks {
        self.clip_until(clip, self.expires_us(now_us))
    }

    /// The same, working until then; none: for ever. What a page plays stops working with the page.
    pub fn clip_until(&self, clip: &Clip, expires_us: Option<i64>) -> ClipLinks {
        let Some(stream) = uuid(Kind::RtStream, &clip.rtstream) else {
            return ClipLinks::default();
        };
        let fields = Stretch {
            start_us: clip.start_us,
            // 0 means open.
            end_us: clip.end_us.map_or(0, |end| end.max(1)),
            expires_us: expires_us.unwrap_or(0),
        }
        .bytes();
        let base = &self.0.base;
        let token = self.sign(Use::Clip, &clip.rtstream, &fields);
        let page = self.sign(Use::Page, "", &[&fields[..], stream.as_bytes()].concat());
        let folder = format!("{base}manifests/{}/{token}", clip.rtstream);
        ClipLinks {
            stream_url: format!("{folder}/stream.m3u8"),
            player_url: format!("{base}watch?v={page}"),
            thumbnail_url: format!("{folder}/{}.jpg", clip.start_us),
        }
    }

    /// The same for something that lasted from `start_us` to `end_us`, with [`PADDING_US`] around.
    pub fn around(&self, rtstream: &str, start_us: i64, end_us: i64, now_us: i64) -> ClipLinks {
        let clip = Clip {
            rtstream: rtstream.to_owned(),
            start_us: start_us.saturating_sub(PADDING_US).max(0),
            end_us: Some(end_us.saturating_add(PADDING_US)),
        };
        self.clip(&clip, now_us)
    }

    /// The player page with this slug: `<public>/watch?v=<slug>`.
    pub fn page(&self, slug: &str) -> String {
        let slug: String = form_urlencoded::byte_serialize(slug.as_bytes()).collect();
        format!("{}watch?v={slug}", self.0.base)
    }

    /// Where an export's file is: `<public>/exports/<token>/<export id>.mp4`; empty when that is no id of an export.
    pub fn export(&self, export_id: &str, now_us: i64) -> String {
        if uuid(Kind::Export, export_id).is_none() {
            return String::new();
        }
        let expires_us = self.expires_us(now_us).unwrap_or(0);
        let token = self.sign(Use::Export, export_id, &expires_us.to_be_bytes());
        format!("{}exports/{token}/{export_id}.mp4", self.0.base)
    }

    /// The clip that a token in `/manifests/<rtstream>/<token>/…` allows.
    pub fn check_clip(&self, rtstream: &str, token: &str, now_us: i64) -> Result<Clip, LinkError> {
        uuid(Kind::RtStream, rtstream).ok_or(LinkError::Invalid)?;
        let fields = self.verify::<{ Stretch::LEN }>(Use::Clip, rtstream, token)?;
        Stretch::read(&fields).clip(rtstream.to_owned(), now_us)
    }

    /// The clip that the `v` of a player page without a record allows, and until when.
    pub fn check_page(&self, v: &str, now_us: i64) -> Result<(Clip, Option<i64>), LinkError> {
        let fields = self.verify::<{ Stretch::LEN + 16 }>(Use::Page, "", v)?;
        let stream = Uuid::from_slice(&fields[Stretch::LEN..]).unwrap_or_default();
        let rtstream = format!("{}{stream}", Kind::RtStream.prefix());
        let stretch = Stretch::read(&fields);
        let expires_us = (stretch.expires_us != 0).then_some(stretch.expires_us);
        Ok((stretch.clip(rtstream, now_us)?, expires_us))
    }

    /// Whether a token in `/exports/<token>/<export id>.mp4` allows it.
    pub fn check_export(&self, export_id: &str, token: &str, now_us: i64) -> Result<(), LinkError> {
        uuid(Kind::Export, export_id).ok_or(LinkError::Invalid)?;
        let fields = self.verify::<8>(Use::Export, export_id, token)?;
        still_works(i64::from_be_bytes(fields), now_us)
    }

    /// A new slug that begins with what is wanted and ends so that nobody can guess it.
    pub fn new_slug(wanted: &str) -> String {
        let mut slug = slug_part(wanted);
        if !slug.is_empty() {
            slug.push('-');
        }
        // The six bytes at either end of a random UUID are random throughout.
        let random = Uuid::new_v4().into_bytes();
        let bits = u128::from_be_bytes(random);
        let bits = (bits >> 80) << 48 | (bits & 0xffff_ffff_ffff);
        for i in 0..UNGUESSABLE {
            let five = (bits >> (5 * i)) & 31;
            slug.push(char::from(
                b"abcdefghijklmnopqrstuvwxyz234567"[five as usize],
            ));
        }
        slug
    }

    fn sign(&self, purpose: Use, about: &str, fields: &[u8]) -> String {
        let mut token = Vec::with_capacity(1 + fields.len() + MAC);
        token.push(VERSION);
        token.extend_from_slice(fields);
        token.extend_from_slice(&self.mac(purpose, about, fields));
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The fields of a token that this key has signed for this use.
    fn verify<const N: usize>(
        &self,
        purpose: Use,
        about: &str,
        token: &str,
    ) -> Result<[u8; N], LinkError> {
        // Longer ones need not be looked at: four characters hold three bytes.
        if token.len() > (1 + N + MAC).div_ceil(3) * 4 {
            return Err(LinkError::Invalid);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| LinkError::Invalid)?;
        if bytes.len() != 1 + N + MAC || bytes[0] != VERSION {
            return Err(LinkError::Invalid);
        }
        let (fields, mac) = bytes[1..].split_at(N);
        let good: bool = self.mac(purpose, about, fields).ct_eq(mac).into();
        let fields = <[u8; N]>::try_from(fields).map_err(|_| LinkError::Invalid)?;
        good.then_some(fields).ok_or(LinkError::Invalid)
    }

    /// Fields are of one length for each use, so no two messages read the same.
    fn mac(&self, purpose: Use, about: &str, fields: &[u8]) -> [u8; MAC] {
        let mut message = hmac::Context::with_key(&self.0.key);
        message.update(&[VERSION, purpose as u8]);
        message.update(fields);
        message.update(about.as_bytes());
        let mut mac = [0; MAC];
        mac.copy_from_slice(&message.sign().as_ref()[..MAC]);
        mac
    }
}

/// What a token says of a clip.
struct Stretch {
    start_us: i64,
    /// 0: open.
    end_us: i64,
    /// 0: never.
    expires_us: i64,
}

impl Stretch {
    const LEN: usize = 24;

    fn bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (at, value) in [self.start_us, self.end_us, self.expires_us]
            .iter()
            .enumerate()
        {
            bytes[at * 8..][..8].copy_from_slice(&value.to_be_bytes());
        }
        bytes
    }

    /// Of at least [`Self::LEN`] bytes.
    fn read(bytes: &[u8]) -> Self {
        let [start_us, end_us, expires_us] = [0, 8, 16].map(|at| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[at..at + 8]);
            i64::from_be_bytes(value)
        });
        Self {
            start_us,
            end_us,
            expires_us,
        }
    }

    fn clip(&self, rtstream: String, now_us: i64) -> Result<Clip, LinkError> {
        still_works(self.expires_us, now_us)?;
        Ok(Clip {
            rtstream,
            start_us: self.start_us,
            end_us: (self.end_us != 0).then_some(self.end_us),
        })
    }
}

fn still_works(expires_us: i64, now_us: i64) -> Result<(), LinkError> {
    if expires_us != 0 && now_us >= expires_us {
        return Err(LinkError::Expired);
    }
    Ok(())
}
