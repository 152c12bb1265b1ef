//! HTML as the text that a reader sees, in Markdown's plain forms: headings with hashes, list items with stars, the
//! cells of a table's row in one line. Pure.
//!
//! The page is read token by token and no tree is made of it: the work is linear in its length, and no depth of nesting
//! can exhaust the stack.

use html5gum::{
    Tokenizer,
    emitters::callback::{CallbackEmitter, CallbackEvent},
};

/// What is no text of the page. Navigation is in it, because its words are on every page and about none.
const SKIPPED: &[&str] = &["script", "style", "template", "noscript", "svg", "math", "canvas", "iframe", "nav"];
/// What stands apart from what is around it, with a blank line between.
const PARAGRAPHS: &[&str] = &[
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "ul",
    "ol",
    "dl",
    "table",
    "pre",
    "blockquote",
    "section",
    "article",
    "header",
    "footer",
    "main",
    "aside",
    "figure",
    "form",
    "fieldset",
    "details",
    "hr",
    "body",
];
/// What begins a line of its own.
const LINES: &[&str] =
    &["div", "br", "li", "dt", "dd", "tr", "caption", "figcaption", "summary", "legend", "address", "option", "head"];
const HEADINGS: &[(&str, &str)] =
    &[("h1", "# "), ("h2", "## "), ("h3", "### "), ("h4", "#### "), ("h5", "##### "), ("h6", "###### ")];

/// The text of a page, or of a piece of one. Whatever is malformed is read as a browser would read it.
pub(super) fn to_text(html: &str) -> String {
    let mut page = Page::default();
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: html5gum::Span<()>| -> Option<()> {
        page.take(&event);
        None
    });
    // Scripts and styles are then read to their end tags, whatever stands in them.
    emitter.naively_switch_states(true);
    for _ in Tokenizer::new_with_emitter(html, emitter) {}
    page.finish()
}

/// What has to stand between the last text and the next.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    Cell,
    Line,
    Paragraph,
}

#[derive(Default)]
struct Page {
    text: String,
    title: String,
    gap: Gap,
    /// A heading's hashes or an item's star, written with the next text; a heading without text leaves none.
    mark: &'static str,
    tag: String,
    is_alt: bool,
    /// The element whose content is left out, and how many of its name are open.
    skipped: Option<(String, usize)>,
    in_title: bool,
    /// Open `pre`s, in which white space counts.
    preformatted: usize,
    has_top_heading: bool,
}

impl Page {
    fn take(&mut self, event: &CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.tag = name_of(name);
                self.is_alt = false;
                self.open();
            }
            CallbackEvent::AttributeName { name } => self.is_alt = self.tag == "img" && *name == b"alt",
            CallbackEvent::AttributeValue { value } if self.is_alt => self.write(&String::from_utf8_lossy(value)),
            CallbackEvent::EndTag { name } => self.close(&name_of(name)),
            CallbackEvent::String { value } => self.write(&String::from_utf8_lossy(value)),
            _ => {}
        }
    }

    fn open(&mut self) {
        let tag = self.tag.as_str();
        match &mut self.skipped {
            Some((skipped, open)) => *open += usize::from(skipped == tag),
            None if SKIPPED.contains(&tag) => self.skipped = Some((tag.to_owned(), 1)),
            None => {
                self.in_title = tag == "title";
                self.preformatted += usize::from(tag == "pre");
                self.has_top_heading |= tag == "h1";
                let gap = gap_at(tag);
                if gap >= Gap::Line {
                    self.mark = mark_of(tag);
                }
                self.widen(gap);
            }
        }
    }

    fn close(&mut self, tag: &str) {
        if let Some((skipped, open)) = &mut self.skipped {
            *open -= usize::from(skipped == tag);
            if *open == 0 {
                self.skipped = None;
            }
            return;
        }
        self.in_title = false;
        self.preformatted -= usize::from(tag == "pre" && self.preformatted > 0);
        if HEADINGS.iter().any(|(name, _)| *name == tag) {
            self.mark = "";
        }
        // Cells are kept apart by where the next one begins.
        self.widen(if matches!(tag, "td" | "th") { Gap::Space } else { gap_at(tag) });
    }

    fn widen(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    fn write(&mut self, text: &str) {
        if self.skipped.is_some() {
            return;
        }
        if self.in_title {
            self.title.push_str(text);
            return;
        }
        if self.preformatted > 0 {
            self.put(text.trim_matches(['\n', '\r']));
            return;
        }
        // Also what is at the edges counts: it keeps this text apart from the one before and after it.
        for (number, word) in text.split(char::is_whitespace).enumerate() {
            if number > 0 {
                self.widen(Gap::Space);
            }
            self.put(word);
        }
    }

    fn put(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let gap = std::mem::take(&mut self.gap);
        if !self.text.is_empty() {
            self.text.push_str(match gap {
                Gap::None => "",
                Gap::Space => " ",
                Gap::Cell => " | ",
                Gap::Line => "\n",
                Gap::Paragraph => "\n\n",
            });
        }
        self.text.push_str(std::mem::take(&mut self.mark));
        self.text.push_str(text);
    }

    /// The text, under the page's title when it has no heading that says what it is about.
    fn finish(self) -> String {
        let title = self.title.split_whitespace().collect::<Vec<_>>().join(" ");
        if title.is_empty() || self.has_top_heading {
            return self.text;
        }
        if self.text.is_empty() { title } else { format!("# {title}\n\n{}", self.text) }
    }
}

fn name_of(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn gap_at(tag: &str) -> Gap {
    match tag {
        "td" | "th" => Gap::Cell,
        _ if PARAGRAPHS.contains(&tag) => Gap::Paragraph,
        _ if LINES.contains(&tag) => Gap::Line,
        _ => Gap::None,
    }
}

fn mark_of(tag: &str) -> &'static str {
    let heading = HEADINGS.iter().find(|(name, _)| *name == tag);
    if tag == "li" { "* " } else { heading.map_or("", |(_, hashes)| hashes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_reads_as_a_reader_sees_it() {
        let page = r#"<!doctype html><html><head><title>Shop</title><style>b > a{}</style>
            <script>if (a < b) document.write("<p>no</p>");</script></head>
            <body><nav><a href="/">Home</a><nav>deep</nav></nav><h1>Returns &amp; <em>refunds</em></h1>
            <p>Within <b>17</b> days of&nbsp;deliv<i>ery</i>, see
            <a href="https://shop.example/faq">the page</a>.</p><!-- not this -->
            <table><tr><th>Kind<th>Days</tr><tr><td>Shoes</td><td></td><td>30</td></tr></table>
            <ul><li>one<li>two <ul><li>three</ul></ul><h3></h3><pre>
a  b
  c
</pre><img src="x.png" alt="a parcel"> <noscript>Switch it on</noscript>caf&eacute; &#128512; 1 &lt; 2</body></html>"#;
        let expected = "# Returns & refunds\n\nWithin 17 days of delivery, see the page.\n\nKind | Days\n\
                        Shoes | 30\n\n* one\n* two\n\n* three\n\na  b\n  c\n\na parcel café 😀 1 < 2";
        assert_eq!(to_text(page), expected);
    }

    #[test]
    fn the_title_stands_in_for_a_missing_heading() {
        assert_eq!(to_text("<title>\n Opening  hours</title><p>Nine to five."), "# Opening hours\n\nNine to five.");
        assert_eq!(to_text("<title>Only this</title>"), "Only this");
        assert_eq!(to_text("<title>Shop</title><h1>Hours</h1>"), "# Hours");
    }

    #[test]
    fn what_is_no_page_is_read_all_the_same() {
        for (html, text) in [
            ("", ""),
            ("plain text", "plain text"),
            ("</div></pre>a < b <", "a < b <"),
            ("<script>never closed", ""),
            ("<p <p>x", "x"),
            ("<img alt>x", "x"),
        ] {
            assert_eq!(to_text(html), text, "{html}");
        }
    }

    #[test]
    fn deep_nesting_is_as_cheap_as_any_text() {
        for tag in ["div", "b", "table><tr><td", "nav", "ul><li"] {
            let text = to_text(&format!("{}x", format!("<{tag}>").repeat(200_000)));
            assert!(text.len() < 10, "{tag}: {} bytes", text.len());
        }
    }

    proptest! {
        #[test]
        fn the_text_is_not_much_longer_than_the_page(
            html in "(<(/?(p|li|h6|td|div|pre|title|nav)|img alt='x')>|[a-z &;\n]|&amp;){0,60}"
        ) {
            let text = to_text(&html);
            prop_assert!(text.len() <= 3 * html.len() + 16, "{:?}", text);
        }
    }
}
