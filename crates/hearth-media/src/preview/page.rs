//! What a page says of itself. Pure: the text of a page in, a few facts out.
//!
//! First what it says to previews (OpenGraph, then the cards of Twitter), then what it says to others: title, description,
//! the first heading, the first paragraphs, the first picture. The tokens are those of HTML; no tree is built.

use std::collections::BTreeMap;

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

/// Properties kept at most, and their length in characters.
const MOST_PROPERTIES: usize = 50;
const PROPERTY_CHARACTERS: usize = 1000;
const TITLE_CHARACTERS: usize = 300;
const TEXT_CHARACTERS: usize = 500;
/// Tokens looked at.
const MOST_TOKENS: usize = 200_000;

/// What was found on a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Properties `og:…`, without the picture's.
    pub(crate) properties: BTreeMap<String, String>,
    /// Addresses of pictures, the best first.
    pub(crate) images: Vec<String>,
    /// Where the same is told as oEmbed.
    pub(crate) oembed: Option<String>,
    /// What addresses on it are relative to.
    pub(crate) base: Option<String>,
}

/// What is gathered on the way.
#[derive(Default)]
struct Gathered {
    metas: BTreeMap<String, String>,
    title: String,
    heading: String,
    text: String,
    image_src: Option<String>,
    icon: Option<String>,
    picture: Option<String>,
    oembed: Option<String>,
    base: Option<String>,
}

/// Where in the page we are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Elsewhere,
    Title,
    Heading,
    Paragraph,
    Unread,
}

/// Reads a page.
pub(crate) fn read(html: &str) -> Page {
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let mut found = Gathered::default();
    let mut place = Place::Elsewhere;
    // What is within these is nobody's text.
    let mut unread = 0_usize;
    for token in Tokenizer::new_with_emitter(html, emitter).take(MOST_TOKENS) {
        let Ok(token) = token;
        match token {
            Token::StartTag(tag) => {
                let name = tag.name.to_ascii_lowercase();
                if is_unread(&name) {
                    unread += usize::from(!tag.self_closing);
                }
                found.tag(&name, &tag);
                place = match &name[..] {
                    _ if unread > 0 => Place::Unread,
                    b"title" if found.title.is_empty() => Place::Title,
                    b"h1" if found.heading.is_empty() => Place::Heading,
                    b"p" => Place::Paragraph,
                    // Within a sentence.
                    b"a" | b"b" | b"i" | b"em" | b"strong" | b"span" | b"code" | b"br" | b"sup" | b"sub" => place,
                    _ => Place::Elsewhere,
                };
                if &name[..] == b"p" || &name[..] == b"br" {
                    add(&mut found.text, " ", TEXT_CHARACTERS);
                }
            }
            Token::EndTag(tag) => {
                let name = tag.name.to_ascii_lowercase();
                if is_unread(&name) {
                    unread = unread.saturating_sub(1);
                }
                if matches!(&name[..], b"title" | b"h1" | b"p") || is_unread(&name) {
                    place = if unread > 0 { Place::Unread } else { Place::Elsewhere };
                }
            }
            Token::String(text) => {
                let text = String::from_utf8_lossy(&text);
                match place {
                    Place::Title => add(&mut found.title, &text, TITLE_CHARACTERS),
                    Place::Heading => add(&mut found.heading, &text, TITLE_CHARACTERS),
                    Place::Paragraph => add(&mut found.text, &text, TEXT_CHARACTERS),
                    Place::Elsewhere | Place::Unread => {}
                }
            }
            _ => {}
        }
    }
    found.into_page()
}

fn is_unread(name: &[u8]) -> bool {
    matches!(name, b"script" | b"style" | b"noscript" | b"template" | b"svg" | b"nav" | b"footer" | b"aside" | b"form")
}

impl Gathered {
    fn tag(&mut self, name: &[u8], tag: &StartTag<()>) {
        let attribute = |wanted: &str| {
            let (_, value) = tag.attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()))?;
            Some(String::from_utf8_lossy(value).trim().to_owned()).filter(|value| !value.is_empty())
        };
        match name {
            b"meta" => {
                let key = attribute("property").or_else(|| attribute("name")).or_else(|| attribute("itemprop"));
                if let (Some(key), Some(content)) = (key, attribute("content"))
                    && self.metas.len() < MOST_PROPERTIES * 4
                    && key.len() <= 100
                {
                    self.metas.entry(key.to_ascii_lowercase()).or_insert(cut(&content, PROPERTY_CHARACTERS));
                }
            }
            b"link" => {
                let (rel, href) = (attribute("rel").unwrap_or_default().to_ascii_lowercase(), attribute("href"));
                let is = |wanted: &str| rel.split_ascii_whitespace().any(|rel| rel == wanted);
                let kind = attribute("type").unwrap_or_default().to_ascii_lowercase();
                if is("image_src") {
                    self.image_src = self.image_src.take().or(href);
                } else if is("icon") || is("apple-touch-icon") {
                    self.icon = self.icon.take().or(href);
                } else if is("alternate") && kind == "application/json+oembed" {
                    self.oembed = self.oembed.take().or(href);
                }
            }
            b"base" => self.base = self.base.take().or_else(|| attribute("href")),
            b"img" if self.picture.is_none() => {
                let side = |name| attribute(name).and_then(|side| side.trim_end_matches("px").parse::<u32>().ok());
                // What is this small counts visitors.
                let is_tiny = [side("width"), side("height")].into_iter().flatten().any(|side| side < 16);
                self.picture = attribute("src").filter(|src| !is_tiny && !src.starts_with("data:"));
            }
            _ => {}
        }
    }

    fn into_page(self) -> Page {
        let Self { metas, title, heading, text, image_src, icon, picture, oembed, base } = self;
        let meta = |names: &[&str]| names.iter().find_map(|name| metas.get(*name).cloned());
        let images = [
            meta(&["og:image:secure_url", "og:image", "og:image:url", "twitter:image", "twitter:image:src", "image"]),
            image_src,
            picture,
            icon,
        ];
        let tidied = |text: &str| Some(tidy(text)).filter(|text| !text.is_empty());
        let mut properties: BTreeMap<String, String> = metas
            .iter()
            .filter(|(name, _)| name.starts_with("og:") && !name.starts_with("og:image"))
            .take(MOST_PROPERTIES)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let fallbacks = [
            ("og:title", meta(&["twitter:title"]).or_else(|| tidied(&title)).or_else(|| tidied(&heading))),
            ("og:description", meta(&["twitter:description", "description"]).or_else(|| tidied(&text))),
        ];
        for (name, value) in fallbacks {
            if let Some(value) = value
                && !properties.contains_key(name)
            {
                properties.insert(name.to_owned(), value);
            }
        }
        Page { properties, images: images.into_iter().flatten().collect(), oembed, base }
    }
}

fn add(gathered: &mut String, text: &str, most_characters: usize) {
    // Spaces are folded later: some room for them.
    if gathered.len() < most_characters * 8 {
        gathered.push_str(text);
    }
    if gathered.len() > most_characters * 8 {
        *gathered = cut(gathered, most_characters * 2);
    }
}

fn tidy(text: &str) -> String {
    cut(&text.split_whitespace().collect::<Vec<_>>().join(" "), TEXT_CHARACTERS)
}

fn cut(text: &str, most_characters: usize) -> String {
    match text.char_indices().nth(most_characters) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(html: &str) -> Vec<(String, String)> {
        read(html).properties.into_iter().collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn what_a_page_says_to_previews_comes_first() {
        let html = r#"<html prefix="og: http://ogp.me/ns#"><head><title>The Rock (1996)</title>
            <meta property="og:title" content="The &quot;Rock&quot;" /><META PROPERTY="og:type" CONTENT="video.movie">
            <meta property="og:title" content="Another"><meta property="og:image" content="test.png"/>
            <meta property="og:image:width" content="5"><meta name=description content="A film">
            <link rel="alternate" type="application/json+oembed" href="/oembed?x=1&amp;y=2"></head></html>"#;
        let page = read(html);
        assert_eq!(
            page.properties.clone().into_iter().collect::<Vec<_>>(),
            pairs(&[("og:description", "A film"), ("og:title", "The \"Rock\""), ("og:type", "video.movie")])
        );
        assert_eq!(page.images, ["test.png"]);
        assert_eq!(page.oembed.as_deref(), Some("/oembed?x=1&y=2"));
    }

    #[test]
    fn a_page_that_says_nothing_is_read() {
        let html = "<!doctype html><title> A\n title </title><script>var x = '<p>no</p>';</script><style>p{}</style>\
            <nav><p>Menu</p></nav><img src=pixel.gif width=1 height=1><img src='data:image/png;base64,x'>\
            <h1>Heading</h1><p>First <b>bold</b> words.<p>More\n&amp; more.</p><img src='/a b.png'>";
        let page = read(html);
        assert_eq!(
            page.properties.into_iter().collect::<Vec<_>>(),
            pairs(&[("og:description", "First bold words. More & more."), ("og:title", "A title")])
        );
        assert_eq!(page.images, ["/a b.png"]);
        assert_eq!(properties("<h1>Only <i>this</i></h1>"), pairs(&[("og:title", "Only this")]));
        assert_eq!(properties(""), []);
        assert_eq!(properties("plain text"), []);
    }

    #[test]
    fn endless_pages_have_an_end() {
        let long = "word ".repeat(100_000);
        let page = read(&format!("<title>{long}</title><p>{long}</p><meta property=og:x content='{long}'>"));
        assert!(page.properties.values().all(|value| value.chars().count() <= PROPERTY_CHARACTERS + 1));
        assert!(page.properties["og:title"].len() <= 4 * TEXT_CHARACTERS);
        let many: String = (0..10_000).map(|n| format!("<meta property='og:{n}' content='x'>")).collect();
        assert!(read(&many).properties.len() <= MOST_PROPERTIES);
        read(&"<div>".repeat(300_000));
        read(&"<".repeat(100_000));
    }
}
