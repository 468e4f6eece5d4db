//! Text that somebody else wrote, with nothing left in it that a terminal would obey.
//!
//! A device's reason, an operator's, a version out of a release file: each may hold what clears a screen, draws a
//! line that nobody said, or turns the direction of what follows.

/// Returns the text on one line.
pub fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// Returns the text with its lines and columns kept.
pub fn lines(text: &str) -> String {
    escaped(text, |character| matches!(character, '\n' | '\t'))
}

fn escaped(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_command(character) && !kept(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Control characters, and the invisible ones that turn the direction of what follows or end a line.
fn is_command(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_command_a_terminal_or_begin_a_line() {
        assert_eq!(line("boot failed: \"ä\" ✓"), "boot failed: \"ä\" ✓");
        assert_eq!(line("a\nb\x1b[2Jc\u{9b}\u{202e}d"), "a\\nb\\u{1b}[2Jc\\u{9b}\\u{202e}d");
        assert_eq!(lines("a\n\tb\r\x07"), "a\n\tb\\r\\u{7}");
    }
}
