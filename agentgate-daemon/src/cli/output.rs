//! Standard output: text for people or JSON for programs; colour on a terminal only.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::{
    failure::Failure,
    terminal::{self, Colour},
};

/// Where answers go.
#[derive(Debug)]
pub(super) struct Output {
    out: io::BufWriter<io::Stdout>,
    /// One JSON object per line instead of text.
    pub(super) json: bool,
    /// Somebody reads along.
    pub(super) terminal: bool,
    colour: bool,
}

impl Output {
    /// Standard output of this process.
    pub(super) fn to_stdout(json: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "no-color.org: the variable is the whole interface")]
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = io::stdout().is_terminal();
        Self { out: io::BufWriter::new(io::stdout()), json, terminal, colour: terminal && !no_color }
    }

    /// Columns of the terminal; `None` where nobody reads along, or it does not say.
    pub(super) fn columns(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|_| self.terminal)?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// One line of text. Whoever builds it escapes what is not their own.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.out, "{line}")?;
        Ok(())
    }

    /// One line of JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(value).map_err(|e| Failure::Output(e.into()))?;
        writeln!(self.out, "{}", terminal::escape_json(&json))?;
        Ok(())
    }

    /// Bytes as they are, for a file or a pipe; on a terminal as escaped text.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.terminal {
            let text = terminal::escape_lines(&String::from_utf8_lossy(bytes));
            writeln!(self.out, "{text}")?;
        } else {
            self.out.write_all(bytes)?;
        }
        Ok(())
    }

    /// Hands over what was written, as after each line that somebody waits for.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        Ok(())
    }

    /// `text`, escaped already, in colour where there is colour.
    pub(super) fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colour { colour.paint(text) } else { text.to_owned() }
    }
}

/// One line on standard error, escaped: messages quote what others sent.
pub(super) fn complain(message: &str) {
    // Where standard error is closed there is nobody to tell.
    let _unheard = writeln!(io::stderr(), "agentctl: {}", terminal::escape_lines(message));
}
