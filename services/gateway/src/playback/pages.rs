//! Player pages: a video, and what its maker wrote about it, as text.

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, header};
use sightline_recordings::StoreError;
use sightline_recordings::links::{Clip, ClipLinks, LinkError};

use super::answer::Refusal;
use super::assets::{HLS, ICON, PLAYER, STYLE};
use super::{Playback, is_token};

/// Nothing from elsewhere, and nothing written into the page, runs or is loaded. hls.js feeds the video through a blob.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      media-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors ";

/// Which pages may show this one in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// None: it is a page of its own.
    Own,
    /// Any: it is made for it.
    Any,
}

/// What a page shows.
struct Shown {
    links: ClipLinks,
    title: String,
    description: String,
}

impl Playback {
    /// The page that `v` of the query names.
    pub(super) async fn page(&self, query: &str, frame: Frame) -> Result<Response, Refusal> {
        let v = query.split('&').find_map(|part| part.strip_prefix("v="));
        let v = v.filter(|v| is_token(v));
        let unknown = Refusal::NotFound("there is no such recording");
        let shown = self.shown(v.ok_or(unknown)?).await?;
        Ok(answer(html(&shown, frame), frame))
    }

    async fn shown(&self, v: &str) -> Result<Shown, Refusal> {
        let now_us = self.core.clock.now_us();
        let links = &self.core.config.links;
        match links.check_page(v, now_us) {
            Ok((clip, expires_us)) => {
                return Ok(Shown {
                    links: links.clip_until(&clip, expires_us),
                    title: String::new(),
                    description: String::new(),
                });
            }
            Err(LinkError::Expired) => return Err(Refusal::Expired),
            Err(LinkError::Invalid) => {}
        }
        let page = match self.core.library.store().page(v).await {
            Ok(page) => page,
            Err(StoreError::NotFound { .. }) => {
                return Err(Refusal::NotFound("there is no such recording"));
            }
            Err(error) => return Err(error.into()),
        };
        if page.expires_us != 0 && page.expires_us <= now_us {
            return Err(Refusal::Expired);
        }
        let clip = Clip {
            rtstream: page.rtstream_id,
            start_us: page.start_us,
            end_us: (page.end_us != 0).then_some(page.end_us),
        };
        let expires_us = (page.expires_us != 0).then_some(page.expires_us);
        Ok(Shown {
            links: links.clip_until(&clip, expires_us),
            title: page.title,
            description: page.description,
        })
    }
}

/// The page that says why there is nothing to play.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let (status, words) = refusal.says();
    let mut sentence = words.to_owned();
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let body = format!(
        "<main class=\"alone\"><p role=\"alert\">{}.</p></main>",
        escaped(&sentence)
    );
    let head = "<title>Sightline</title>".to_owned();
    let mut response = answer(document(&head, &body), Frame::Any);
    *response.status_mut() = status;
    refusal.mark(&mut response);
    response
}

fn answer(html: String, frame: Frame) -> Response {
    let mut response = Html(html).into_response();
    let ancestors = match frame {
        Frame::Own => "'none'",
        Frame::Any => "*",
    };
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&format!("{POLICY}{ancestors}")) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn html(shown: &Shown, frame: Frame) -> String {
    let title = if shown.title.is_empty() {
        "Recording"
    } else {
        &shown.title
    };
    let (title, description) = (escaped(title), escaped(&shown.description));
    let head = format!(
        "<title>{title}</title>\n\
         <meta property=\"og:type\" content=\"video.other\">\n\
         <meta property=\"og:title\" content=\"{title}\">\n\
         <meta property=\"og:description\" content=\"{description}\">\n\
         <meta property=\"og:image\" content=\"{image}\">\n\
         <script src=\"{hls}\" defer></script>\n\
         <script src=\"{player}\" defer></script>",
        image = escaped(&shown.links.thumbnail_url),
        hls = HLS.address(),
        player = PLAYER.address(),
    );
    let video = format!(
        "<video id=\"video\" controls playsinline muted autoplay data-playlist=\"{}\"></video>\n\
         <p id=\"message\" role=\"status\" hidden></p>",
        escaped(relative(&shown.links.stream_url)),
    );
    let line = |tag: &str, name: &str, text: &str, given: &str| {
        if given.is_empty() {
            String::new()
        } else {
            format!("<{tag} id=\"{name}\">{text}</{tag}>\n")
        }
    };
    let heading = line("h1", "title", &title, &shown.title);
    let words = line("p", "description", &description, &shown.description);
    let class = match frame {
        Frame::Own => "page",
        Frame::Any => "frame",
    };
    let body = format!(
        "<main class=\"{class}\">\n{heading}<div id=\"screen\">{video}</div>\n{words}</main>"
    );
    document(&head, &body)
}

/// An address below the public one as seen from a page, which may be reached by another name.
fn relative(address: &str) -> &str {
    address
        .rfind("/manifests/")
        .map_or(address, |place| &address[place + 1..])
}

fn document(head: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"stylesheet\" href=\"{style}\">\n<link rel=\"icon\" href=\"{icon}\">\n{head}\n\
         </head>\n<body>\n{body}\n</body>\n</html>\n",
        style = STYLE.address(),
        icon = ICON.address(),
    )
}

/// Text as HTML shows it, in elements and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        for (text, expected) in [
            ("A street", "A street"),
            ("<script>", "&lt;script&gt;"),
            ("\"'&", "&quot;&#39;&amp;"),
            ("&lt;", "&amp;lt;"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn playlists_are_found_under_any_name_of_the_server() {
        for (address, expected) in [
            (
                "https://v.example/manifests/a/b/stream.m3u8",
                "manifests/a/b/stream.m3u8",
            ),
            ("https://v.example/x/manifests/a/b/c", "manifests/a/b/c"),
        ] {
            assert_eq!(relative(address), expected);
        }
    }
}
