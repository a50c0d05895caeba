//! The table: a heading per section, a line per row as soon as it is known, and a closing count.

use std::fmt::Display;
use std::io::{Result, Write};

/// Prints and counts.
pub(crate) struct Report<W> {
    out: W,
    met: usize,
    missed: usize,
    failed: usize,
}

/// CPU time of one server per operation, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
}

impl Cost {
    /// User and system time together.
    pub(crate) fn sum_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

/// Target of a row.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// The figure of the second column, at most so many times that of the first.
    Times(f64),
    /// The figure of the second column, at most so much.
    Value(f64),
    /// Nothing: the row is there to be read.
    None,
}

impl<W: Write> Report<W> {
    /// An empty report on `out`.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            met: 0,
            missed: 0,
            failed: 0,
        }
    }

    /// A line of text.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Begins a section whose rows have two figures.
    pub(crate) fn heading(&mut self, title: &str, first: &str, second: &str) -> Result<()> {
        writeln!(self.out, "\n{title}")?;
        self.columns(&["row", first, second, "ratio", "target", "", ""])
    }

    /// A row: the two figures, the target, and remarks.
    pub(crate) fn line(
        &mut self,
        name: &str,
        first: Option<f64>,
        second: f64,
        target: Target,
        note: &str,
    ) -> Result<()> {
        let ratio = first.filter(|first| *first > 0.0).map(|first| second / first);
        let (wanted, met) = match target {
            Target::Times(times) => (format!("{times:.2} x"), ratio.map(|ratio| ratio <= times)),
            Target::Value(value) => (figure(value), Some(second <= value)),
            Target::None => (String::new(), None),
        };
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        self.met += usize::from(met == Some(true));
        self.missed += usize::from(met == Some(false));
        let first = first.map(figure).unwrap_or_default();
        let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        self.columns(&[name, &first, &figure(second), &ratio, &wanted, verdict, note])
    }

    /// A row without remarks, or that its figures could not be measured.
    pub(crate) fn pair(&mut self, name: &str, target: Target, figures: Result<[f64; 2]>) -> Result<()> {
        match figures {
            Ok([first, second]) => self.line(name, Some(first), second, target, ""),
            Err(error) => self.failure(name, &error),
        }
    }

    /// Begins a section whose rows have user and system time of each server.
    pub(crate) fn contest_heading(&mut self, title: &str, servers: &[&str]) -> Result<()> {
        writeln!(self.out, "\n{title}")?;
        let mut line = format!("{:<26}", "user + system, µs/op");
        for server in servers {
            line.push_str(&format!(" {server:>15}"));
        }
        self.say(&line)
    }

    /// A row with user and system time of each server, then how ours compares: each comparison with a name, a ratio and the
    /// most it may be.
    pub(crate) fn contest_line(
        &mut self,
        name: &str,
        costs: &[Cost],
        comparisons: &[(&str, f64, Option<f64>)],
        note: &str,
    ) -> Result<()> {
        let mut line = format!("{name:<26}");
        for cost in costs {
            let both = format!("{} + {}", figure(cost.user_us), figure(cost.system_us));
            line.push_str(&format!(" {both:>15}"));
        }
        for &(what, ratio, most) in comparisons {
            let verdict = most.map(|most| self.judge(ratio <= most, &format!("{most:.2}")));
            line.push_str(&format!("  {what} {ratio:.2}{:<14}", verdict.unwrap_or_default()));
        }
        self.say(format!("{line} {note}").trim_end())
    }

    /// Counts a target, and returns the verdict.
    fn judge(&mut self, is_met: bool, target: &str) -> String {
        if is_met {
            self.met += 1;
            format!(" ({target} met)")
        } else {
            self.missed += 1;
            format!(" ({target} MISSED)")
        }
    }

    /// A row that could not be measured.
    pub(crate) fn failure(&mut self, name: &str, error: &dyn Display) -> Result<()> {
        self.failed += 1;
        writeln!(self.out, "{name:<28} FAILED: {error}")?;
        self.out.flush()
    }

    /// The closing count; true if every row could be measured.
    pub(crate) fn close(&mut self) -> Result<bool> {
        let Self {
            met, missed, failed, ..
        } = *self;
        self.say(&format!(
            "\n{met} targets met, {missed} missed, {failed} rows failed"
        ))?;
        Ok(failed == 0)
    }

    fn columns(&mut self, cells: &[&str; 7]) -> Result<()> {
        let [name, first, second, ratio, target, verdict, note] = cells;
        let line =
            format!("{name:<28} {first:>15} {second:>15} {ratio:>6} {target:>8}  {verdict:<6}  {note}");
        self.say(line.trim_end())
    }
}

/// A number with three digits that matter.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size < 1.0 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(
            [0.1234, 1.234, 72.34, 1234.5].map(figure),
            ["0.123", "1.23", "72.3", "1234"]
        );
    }

    #[test]
    fn a_contest_shows_every_server_and_judges_ratios() {
        let mut report = Report::new(Vec::new());
        let cost = |user_us, system_us| Cost { user_us, system_us };
        let comparisons = [
            ("redis", 0.5, Some(0.4)),
            ("before", 1.0, None),
            ("valkey", 0.5, Some(0.5)),
        ];
        report
            .contest_line("a", &[cost(1.0, 0.5), cost(0.5, 0.25)], &comparisons, "")
            .unwrap();
        assert_eq!((report.met, report.missed), (1, 1));
        let text = String::from_utf8(report.out).unwrap();
        for part in [
            "1.00 + 0.500",
            "redis 0.50 (0.40 MISSED)",
            "before 1.00",
            "valkey 0.50 (0.50 met)",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn verdicts_are_shown_and_counted() {
        let mut report = Report::new(Vec::new());
        report.line("a", Some(2.0), 1.0, Target::Times(0.5), "").unwrap();
        report.line("b", Some(2.0), 1.0, Target::Times(0.4), "").unwrap();
        report.line("c", None, 73.0, Target::Value(72.0), "note").unwrap();
        report.failure("d", &"lost").unwrap();
        assert!(!report.close().unwrap());
        let text = String::from_utf8(report.out).unwrap();
        assert!(
            text.lines()
                .next()
                .is_some_and(|line| line.ends_with("0.50   0.50 x  met")),
            "{text}"
        );
        assert!(
            text.ends_with("1 targets met, 2 missed, 1 rows failed\n"),
            "{text}"
        );
    }
}
