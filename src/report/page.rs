//! The page around the plots: one file that needs nothing from anywhere, on the screen and on paper, light and dark.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::units::escape;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A whole document. `title` is plain text, `body` is HTML.
///
/// Its policy lets the browser fetch nothing and run nothing but the one script and style sheet that are in it, known
/// by their checksums: markup that somebody got into a name despite all would still do nothing.
pub(super) fn document(title: &str, body: &str) -> String {
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        checksum(STYLE),
        checksum(SCRIPT)
    );
    let title = escape(title);
    format!(
        concat!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
            "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n",
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
            "<meta name=\"color-scheme\" content=\"light dark\">\n",
            // Or the browser asks the server of the page for one.
            "<link rel=\"icon\" href=\"data:,\">\n",
            "<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n",
            "<script>{script}</script>\n</body>\n</html>\n"
        ),
        policy = policy,
        title = title,
        style = STYLE,
        body = body,
        script = SCRIPT,
    )
}

fn checksum(text: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(text))
}

/// The top of the page: what it is, what came of it in one sentence, and what to think of that.
pub(super) fn headline(kind: &str, verdict: &str, remarks: &[String]) -> String {
    let mut out =
        format!("<header>\n<p class=\"kind\">{}</p>\n<h1>{}</h1>\n", escape(kind), sentence(verdict));
    for remark in remarks {
        out.push_str(&format!("<p class=\"remark\">{}</p>\n", sentence(remark)));
    }
    out + "</header>\n"
}

/// A sentence as HTML, in which no line ends between a number and its unit.
pub(super) fn sentence(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        let is_unit_next = rest.peek().is_some_and(|next| next.is_alphabetic() || *next == '%');
        let is_bound = character == ' ' && before.is_ascii_digit() && is_unit_next;
        out.push(if is_bound { '\u{a0}' } else { character });
        before = character;
    }
    escape(&out)
}

/// The few numbers that a reader looks for first: each with what it is.
pub(super) fn tiles(numbers: &[(String, &str)]) -> String {
    let mut out = String::from("<dl class=\"tiles\">\n");
    for (value, name) in numbers {
        out.push_str(&format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), big(value)));
    }
    out + "</dl>\n"
}

/// A number with its unit in smaller type.
fn big(value: &str) -> String {
    let mut words = Vec::new();
    for word in value.split(' ') {
        let is_unit = word.starts_with(|first: char| first.is_alphabetic() || first == '%');
        words.push(if is_unit { format!("<small>{}</small>", escape(word)) } else { escape(word) });
    }
    words.join(" ")
}

/// A heading over cards, with a sentence on what follows.
pub(super) fn section(title: &str, remark: &str, cards: &str) -> String {
    let remark = if remark.is_empty() { String::new() } else { format!("<p>{}</p>\n", sentence(remark)) };
    format!(
        "<section>\n<h2>{}</h2>\n{remark}<div class=\"cards\">\n{cards}</div>\n</section>\n",
        escape(title)
    )
}

/// How much of the page's width a card takes where there is room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Half,
    Whole,
}

/// A plot or a table with its title and a sentence on what one sees. `content` is HTML.
pub(super) fn card(width: Width, title: &str, caption: &str, content: &str) -> String {
    let class = if width == Width::Whole { "card whole" } else { "card" };
    let title = escape(title);
    let caption = sentence(caption);
    format!(
        "<figure class=\"{class}\">\n<figcaption><h3>{title}</h3>\n<p>{caption}</p></figcaption>\n{content}</figure>\n"
    )
}

/// Cards above each other in one column.
pub(super) fn stack(cards: &str) -> String {
    format!("<div class=\"stack\">\n{cards}</div>\n")
}

/// What lines and colours mean, and the unit of the axis below. Each entry is a class and a text.
pub(super) fn key(unit: &str, entries: &[(&str, &str)]) -> String {
    let mut out = format!("<div class=\"key\"><span class=\"unit\">{}</span>", escape(unit));
    for (class, text) in entries {
        out.push_str(&format!("<span><i class=\"{class}\"></i>{}</span>", escape(text)));
    }
    out + "</div>\n"
}

/// A table; all columns from `numbers_from` on hold numbers. Texts are escaped here.
pub(super) fn table(heads: &[&str], numbers_from: usize, rows: &[Vec<String>]) -> String {
    let class = |column: usize| if column < numbers_from { "" } else { " class=\"n\"" };
    let mut out = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
    for (column, head) in heads.iter().enumerate() {
        out.push_str(&format!("<th{}>{}</th>", class(column), escape(head)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (column, text) in row.iter().enumerate() {
            out.push_str(&format!("<td{}>{}</td>", class(column), escape(text)));
        }
        out.push_str("</tr>\n");
    }
    out + "</tbody></table></div>\n"
}

/// Names and what they stand for.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let mut out = String::from("<dl class=\"facts\">\n");
    for (name, value) in facts {
        out.push_str(&format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value)));
    }
    out + "</dl>\n"
}

/// In the place of a plot that there is nothing for.
pub(super) fn nothing(id: &str, why: &str) -> String {
    format!("<p class=\"nothing\" id=\"{id}\">{}</p>\n", escape(why))
}
