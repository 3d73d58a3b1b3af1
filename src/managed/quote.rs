//! Text as a word of a shell, whatever is in it.

/// A word of a POSIX shell.
pub(crate) fn posix(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A string of PowerShell. It takes four other characters for an apostrophe too.
pub(super) fn powershell(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        if matches!(c, '\'' | '\u{2018}'..='\u{201b}') {
            quoted.push(c);
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

/// A string of a resource manager template: in brackets it would be an expression.
pub(super) fn template(text: &str) -> String {
    if text.starts_with('[') && text.ends_with(']') { format!("[{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_a_quoted_word_but_its_end() {
        assert_eq!(posix("/subscriptions/a/x-1.y_2"), "/subscriptions/a/x-1.y_2");
        assert_eq!(posix(""), "''");
        assert_eq!(posix("team (a)"), "'team (a)'");
        assert_eq!(posix("it's $(id) `id`"), r"'it'\''s $(id) `id`'");
        assert_eq!(powershell("it's $x"), "'it''s $x'");
        assert_eq!(powershell("it\u{2019}s \u{201b}"), "'it\u{2019}\u{2019}s \u{201b}\u{201b}'");
        assert_eq!(template("[resourceGroup().id]"), "[[resourceGroup().id]");
        assert_eq!(template("[open"), "[open");
    }

    /// The shell itself is the judge.
    #[cfg(unix)]
    #[test]
    fn a_shell_reads_the_word_as_it_was() {
        for text in ["", "a b", "it's", "$HOME `id` $(id) \\ \" ! * ? ~ # & ; | < >", "-n", "ü\u{2019}"] {
            let run = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("printf '[%s]' {}", posix(text)))
                .output();
            assert_eq!(run.ok().map(|run| run.stdout), Some(format!("[{text}]").into_bytes()), "{text}");
        }
    }
}
