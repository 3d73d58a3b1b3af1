//! What limited a run: over time as a coloured band, and in all as a bar with its parts.

use crate::measure::{Limit, Share};

use super::page::{self, Width};
use super::plot::{percentage, title_of};
use super::slots::Slot;
use super::units::{duration, escape, percent};

/// Its name on the page.
pub(super) fn name(limit: Limit) -> &'static str {
    match limit {
        Limit::Source => "Source",
        Limit::Target => "Target",
        Limit::Cap => "Your cap",
        Limit::Cpu => "CPU",
        Limit::Link => "Link",
        Limit::Listing => "Listing",
        Limit::Window => "Window",
        Limit::Unknown => "Unknown",
    }
}

/// What it means, in the words of [`Limit`].
pub(super) fn meaning(limit: Limit) -> &'static str {
    match limit {
        Limit::Source => "the source refused (503) or answered late",
        Limit::Target => "the target refused (503) or answered late",
        Limit::Cap => "a cap that was set",
        Limit::Cpu => "the processors of this machine",
        Limit::Link => "more in flight only made each chunk take longer",
        Limit::Listing => "the page list came slower than it was copied",
        Limit::Window => "as much was in flight as was allowed",
        Limit::Unknown => "the window was opening, or there was too little time to tell",
    }
}

/// The sentence for the headline.
pub(super) fn sentence(limits: &[Share]) -> String {
    // What is known says more than how long nothing was.
    let known = limits.iter().find(|share| share.part > 0.0 && share.limit != Limit::Unknown);
    let Some(first) = known else {
        return "It was too short to tell what limited it.".to_owned();
    };
    let what = match first.limit {
        Limit::Source => "the source set the pace",
        Limit::Target => "the target set the pace",
        Limit::Cap => "a cap that you set was the limit",
        Limit::Cpu => "this machine's processors were the limit",
        Limit::Link => "the link was the limit",
        Limit::Listing => "the page list was the limit",
        Limit::Window => "the number of chunks in flight was the limit",
        Limit::Unknown => "nothing could be told",
    };
    let unknown = limits.iter().find(|share| share.limit == Limit::Unknown).map_or(0.0, |share| share.part);
    if unknown > first.part {
        let (part, unknown) = (percent(first.part), percent(unknown));
        return format!("For {part} of the time {what}; for {unknown} nothing could be told.");
    }
    format!("For {} of the time {what}.", percent(first.part))
}

/// The class that colours it.
pub(super) fn class(limit: Limit) -> &'static str {
    match limit {
        Limit::Source => "of-source",
        Limit::Target => "of-target",
        Limit::Cap => "of-cap",
        Limit::Cpu => "of-cpu",
        Limit::Link => "of-link",
        Limit::Listing => "of-listing",
        Limit::Window => "of-window",
        Limit::Unknown => "of-unknown",
    }
}

/// Over time, in the same width as the plot that it stands under.
pub(super) fn band(id: &str, slots: &[Slot], seconds: f64) -> String {
    let mut marks = String::new();
    let mut rest = slots;
    while let Some(first) = rest.first() {
        // Neighbours with the same limit are one mark.
        let length = rest.iter().position(|slot| slot.limit != first.limit).unwrap_or(rest.len());
        let to = rest[length - 1].to;
        rest = &rest[length..];
        let (from, until) = (first.from / seconds, to / seconds);
        marks.push_str(&format!(
            r#"<rect class="{}" x="{}" width="{}" height="100%">{}</rect>"#,
            class(first.limit),
            percentage(from),
            percentage(until - from),
            title_of(&format!(
                "{} to {}\n{}: {}",
                duration(first.from),
                duration(to),
                name(first.limit),
                meaning(first.limit)
            )),
        ));
    }
    format!(
        concat!(
            r#"<div class="frame band"><svg class="plot" id="{id}" role="img" aria-label="What limited the run over time" "#,
            r#"height="14">{marks}</svg></div>"#,
            "\n"
        ),
        id = id,
        marks = marks
    )
}

/// In all: a bar, and its parts by name.
pub(super) fn card(id: &str, limits: &[Share]) -> String {
    const TITLE: &str = "What limited it, in all";
    let shares: Vec<&Share> =
        limits.iter().filter(|share| share.part.is_finite() && share.part > 0.0).collect();
    if shares.is_empty() {
        let nothing = page::nothing(id, "It was over before anything could be told.");
        return page::card(Width::Half, TITLE, "Parts of the time.", &nothing);
    }
    let sum: f64 = shares.iter().map(|share| share.part).sum::<f64>().max(1.0);
    let mut bar = String::new();
    let mut list = String::from("<ul class=\"shares\">\n");
    let mut place = 0.0;
    for share in shares {
        let part = share.part / sum;
        let (class, name, meaning) = (class(share.limit), name(share.limit), meaning(share.limit));
        bar.push_str(&format!(
            r#"<rect class="{class}" x="{}" width="{}" height="100%">{}</rect>"#,
            percentage(place),
            percentage(part),
            title_of(&format!("{name}: {}", percent(part))),
        ));
        place += part;
        list.push_str(&format!(
            "<li><i class=\"{class}\"></i><b>{}</b><span>{name}</span><em>{}</em></li>\n",
            percent(part),
            escape(meaning)
        ));
    }
    let content = format!(
        concat!(
            r#"<svg class="plot bar" id="{id}" role="img" aria-label="What limited the run, in parts of the time" height="22">"#,
            "{bar}</svg>\n{list}</ul>\n"
        ),
        id = id,
        bar = bar,
        list = list
    );
    page::card(Width::Half, TITLE, "Parts of the time, the largest first.", &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_says_how_long_nothing_was_known() {
        let share = |limit, part| Share { limit, part };
        assert_eq!(
            sentence(&[share(Limit::Source, 0.8), share(Limit::Unknown, 0.2)]),
            "For 80 % of the time the source set the pace."
        );
        assert_eq!(
            sentence(&[share(Limit::Unknown, 0.987), share(Limit::Source, 0.013)]),
            "For 1.3 % of the time the source set the pace; for 99 % nothing could be told."
        );
        assert!(sentence(&[share(Limit::Unknown, 1.0)]).starts_with("It was too short"));
    }
}
