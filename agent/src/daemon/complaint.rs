//! How the daemon tells a person that it cannot go on.

use std::error::Error;

/// `error: …`, each cause on a line of its own, and what to do about it if we know.
pub fn text(error: &dyn Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("  caused by: {error}\n"));
        cause = error.source();
    }
    if let Some(hint) = hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen on 127.0.0.1:80")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_complaint_names_the_error_its_causes_and_the_way_out() {
        let error = Outer(io::Error::other("permission denied"));
        let expected = "error: cannot listen on 127.0.0.1:80\n  caused by: permission denied\nhint: use a port above 1023\n";
        assert_eq!(text(&error, Some("use a port above 1023")), expected);
    }
}
