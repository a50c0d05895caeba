//! [`Value`]: the interface of directive values, for parsing, showing and writing them.
//!
//! The table of directives uses it for every field of `Settings`. This file has the plain types: yes or no, integers,
//! text, secrets, the working directory. `choice.rs` has the enumerations, `special.rs` the directives with a syntax
//! of their own. Parsing replaces a value only if all of it is valid.

use super::directives::Row;
use super::file::quote;
use crate::error::describe;
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// Reason for which a value was refused, in the words of Redis.
pub type Reason = Cow<'static, str>;

/// Whether an assignment replaces a list or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assign {
    /// The arguments are the whole new value.
    Replace,
    /// The arguments follow an earlier line of the same directive; only `save` adds them up.
    Extend,
}

/// Condition under which a directive is appended to a configuration file that does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// All its lines, if the value is not the default.
    Changed,
    /// Each of its lines that differs from the default's line at the same place.
    EachChanged,
    /// Always: other values depend on this one.
    Always,
}

/// Interface of a directive's value.
pub trait Value {
    /// Takes the arguments of a directive as the new value. The old one stays if they are refused.
    ///
    /// # Errors
    /// The reason, without the directive's name.
    fn assign(&mut self, row: &Row, args: &[&[u8]], how: Assign) -> Result<(), Reason>;

    /// The value as CONFIG GET shows it.
    fn show(&self, row: &Row) -> Vec<u8>;

    /// The value as lines of a configuration file, each without the directive's name.
    fn lines(&self, row: &Row) -> Vec<Vec<u8>> {
        vec![self.show(row)]
    }

    /// Condition under which a rewritten file needs those lines.
    fn emit(&self) -> Emit {
        Emit::Changed
    }
}

/// The argument of a directive that takes exactly one.
pub(super) fn single<'a>(args: &[&'a [u8]]) -> Result<&'a [u8], Reason> {
    match args {
        [arg] => Ok(arg),
        _ => Err("wrong number of arguments".into()),
    }
}

/// An argument as text; settings other than secrets are names, paths and addresses.
pub(super) fn utf8(arg: &[u8]) -> Result<&str, Reason> {
    std::str::from_utf8(arg).map_err(|_| "argument must be valid UTF-8".into())
}

impl Value for bool {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let arg = single(args)?;
        *self = if arg.eq_ignore_ascii_case(b"yes") {
            true
        } else if arg.eq_ignore_ascii_case(b"no") {
            false
        } else {
            return Err("argument must be 'yes' or 'no'".into());
        };
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        if *self { b"yes".to_vec() } else { b"no".to_vec() }
    }
}

/// Reads an integer in the row's form, and checks it against the row's range.
fn integer(row: &Row, arg: &[u8]) -> Result<i128, Reason> {
    let number = row.form.parse(arg)?;
    if number < row.min || number > row.max {
        let (min, max) = (row.form.show(row.min), row.form.show(row.max));
        return Err(format!("argument must be between {min} and {max} inclusive").into());
    }
    Ok(match row.clamp {
        Some((low, high)) => number.clamp(low, high),
        None => number,
    })
}

macro_rules! integer_values {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn assign(&mut self, row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
                let number = integer(row, single(args)?)?;
                // A test of the table compares every range with its field's type; this is a second check.
                *self = Self::try_from(number).map_err(|_| "argument is out of range")?;
                Ok(())
            }

            fn show(&self, row: &Row) -> Vec<u8> {
                row.form.show(i128::from(*self)).into_bytes()
            }

            fn lines(&self, row: &Row) -> Vec<Vec<u8>> {
                vec![row.form.write(i128::from(*self)).into_bytes()]
            }
        }
    )*};
}

integer_values!(u8, u16, u32, i32, u64, i64);

/// Text: a name, a path, an address. Empty stands for none.
impl Value for String {
    fn assign(&mut self, row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let text = utf8(single(args)?)?;
        if let Some(check) = row.check {
            check(text)?;
        }
        text.clone_into(self);
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        self.clone().into_bytes()
    }

    fn lines(&self, _row: &Row) -> Vec<Vec<u8>> {
        vec![quote(self.as_bytes())]
    }
}

/// A password or the like: any bytes, empty for none, never printed by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl Secret {
    /// The bytes, or `None` if the secret is not set.
    pub fn get(&self) -> Option<&[u8]> {
        (!self.0.is_empty()).then_some(self.0.as_slice())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "Secret(none)"
        } else {
            "Secret(set)"
        })
    }
}

impl Value for Secret {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        self.0 = single(args)?.to_vec();
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        self.0.clone()
    }

    fn lines(&self, _row: &Row) -> Vec<Vec<u8>> {
        vec![quote(&self.0)]
    }
}

/// The directory that relative paths of the configuration start from. It is absolute, and existed when it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkingDirectory(String);

impl WorkingDirectory {
    /// The working directory of the process; `/` if it is unknown.
    pub(super) fn current() -> Self {
        let path = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self(path.to_string_lossy().into_owned())
    }

    /// The directory as a path.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Value for WorkingDirectory {
    fn assign(&mut self, _row: &Row, args: &[&[u8]], _how: Assign) -> Result<(), Reason> {
        let wanted = self.path().join(utf8(single(args)?)?);
        let found = wanted
            .canonicalize()
            .map_err(|error| Reason::from(describe(&error)))?;
        if !found.is_dir() {
            return Err("Not a directory".into());
        }
        found
            .to_str()
            .ok_or("argument must be valid UTF-8")?
            .clone_into(&mut self.0);
        Ok(())
    }

    fn show(&self, _row: &Row) -> Vec<u8> {
        self.0.clone().into_bytes()
    }

    fn lines(&self, _row: &Row) -> Vec<Vec<u8>> {
        vec![quote(self.0.as_bytes())]
    }

    /// Relative paths in the file would mean something else after a start in another directory.
    fn emit(&self) -> Emit {
        Emit::Always
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(value: &mut dyn Value, row: &Row, text: &str) -> Result<(), String> {
        value
            .assign(row, &[text.as_bytes()], Assign::Replace)
            .map_err(Cow::into_owned)
    }

    #[test]
    fn yes_and_no_in_any_case_and_nothing_else() {
        let row = Row::new("flag");
        let mut flag = false;
        assign(&mut flag, &row, "YES").unwrap();
        assert!(flag);
        let wanted = Err("argument must be 'yes' or 'no'".to_owned());
        assert_eq!(assign(&mut flag, &row, "1"), wanted);
        assert!(flag, "a refused value leaves the old one");
    }

    #[test]
    fn integers_keep_to_their_range() {
        let row = Row::new("number").range(1, 9);
        let mut number = 5_u16;
        for text in ["0", "10", "-1"] {
            let wanted = Err("argument must be between 1 and 9 inclusive".to_owned());
            assert_eq!(assign(&mut number, &row, text), wanted);
        }
        for text in ["", "abc", "+5", " 5", "007", "0x1", "99999999999999999999"] {
            let wanted = Err("argument couldn't be parsed into an integer".to_owned());
            assert_eq!(assign(&mut number, &row, text), wanted, "{text:?}");
        }
        assert_eq!(number, 5);
        assign(&mut number, &row, "9").unwrap();
        assert_eq!(number, 9);
        let mode = Row::new("mode").range(0, 0o777).octal();
        let wanted = Err("argument must be between 0 and 777 inclusive".to_owned());
        assert_eq!(assign(&mut number, &mode, "1777"), wanted);
    }

    #[test]
    fn a_clamped_integer_is_pulled_into_its_limits() {
        let row = Row::new("hz").range(0, 1_000_000).clamped(1, 500);
        let mut hz = 10_u32;
        assign(&mut hz, &row, "1000").unwrap();
        assert_eq!(hz, 500);
        assign(&mut hz, &row, "0").unwrap();
        assert_eq!(hz, 1);
    }

    #[test]
    fn a_directory_must_exist_and_becomes_absolute() {
        let row = Row::new("dir");
        let mut dir = WorkingDirectory::current();
        let before = dir.clone();
        let error = assign(&mut dir, &row, "/nonexistent-directory").unwrap_err();
        assert_eq!(error, "No such file or directory");
        assert_eq!(dir, before);
        assign(&mut dir, &row, "/tmp/..").unwrap();
        assert_eq!(dir.path(), Path::new("/"));
        assign(&mut dir, &row, "tmp").unwrap();
        assert_eq!(dir.path(), Path::new("/tmp"), "relative to the one before");
    }

    #[test]
    fn secrets_do_not_leak_through_debug() {
        assert!(!format!("{:?}", Secret(b"hunter2".to_vec())).contains("hunter2"));
    }
}
