//! The options of ps(1) that choose columns. Those that choose processes change nothing: the
//! container's are shown, all of them.

use super::columns::Column;
use crate::error::ApiError;

/// A title and what stands below it.
pub(super) type Columns = Vec<(String, Column)>;

/// `ps -ef`.
const FULL: &str = "user=UID,pid,ppid,c,stime,tty,time,cmd";
/// `ps -F`.
const EXTRA_FULL: &str = "user=UID,pid,ppid,c,sz,rss,psr,stime,tty,time,cmd";
/// `ps -e`.
const SHORT: &str = "pid,tty,time,comm=CMD";
/// `ps u`.
const OF_USERS: &str = "user,pid,pcpu,pmem,vsz,rss,tty,stat,stime=START,bsdtime,command";
/// `ps x`.
const OF_BSD: &str = "pid,tty,stat,bsdtime,command";

/// The columns that options ask for.
///
/// # Errors
/// InvalidInput, naming the option or the column that is not known.
pub(super) fn parse(text: &str) -> Result<Columns, ApiError> {
    let mut usual = None;
    let mut chosen = Columns::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            match long.split_once('=') {
                Some(("format", list)) => chosen.extend(columns(list)?),
                None if long == "format" => chosen.extend(columns(value(word, words.next())?)?),
                _ => return Err(unknown(text, word)),
            }
            continue;
        }
        let (letters, dashed) = match word.strip_prefix('-') {
            // What everybody writes, though it means the processes of a user `x`.
            Some("aux") => ("aux", false),
            Some(letters) => (letters, true),
            None => (word, false),
        };
        let mut rest = letters;
        while let Some(letter) = rest.chars().next() {
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
            match (letter, dashed) {
                ('o', _) => {
                    let list = match rest {
                        "" => value(word, words.next())?,
                        list => list,
                    };
                    chosen.extend(columns(list)?);
                    break;
                }
                ('f', true) => usual = Some(FULL),
                ('F', true) => usual = Some(EXTRA_FULL),
                ('u', false) => usual = Some(OF_USERS),
                ('e' | 'A' | 'a' | 'd' | 'x' | 'w', true) => {}
                ('a' | 'x' | 'w' | 'r', false) => usual = usual.or(Some(OF_BSD)),
                _ => return Err(unknown(text, word)),
            }
        }
    }
    match chosen.is_empty() {
        true => columns(usual.unwrap_or(SHORT)),
        false => Ok(chosen),
    }
}

fn value<'a>(option: &str, next: Option<&'a str>) -> Result<&'a str, ApiError> {
    next.ok_or_else(|| {
        ApiError::invalid(format!(
            "ps_args: a list of columns must follow {option}: -o pid,user,args"
        ))
    })
}

/// Columns by their names, each with a title of its own after `=`.
fn columns(list: &str) -> Result<Columns, ApiError> {
    let mut columns = Columns::new();
    let mut rest = list;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let (usual, column) = Column::find(name).ok_or_else(|| {
            ApiError::invalid(format!(
                "ps_args: unknown column {name:?}; known are: {}",
                Column::names()
            ))
        })?;
        let title = match after.strip_prefix('=') {
            Some(after) => {
                let (title, next) = after.split_once(',').unwrap_or((after, ""));
                rest = next;
                title.to_owned()
            }
            None => {
                rest = after.strip_prefix(',').unwrap_or_default();
                usual.to_owned()
            }
        };
        columns.push((title, column));
    }
    Ok(columns)
}

fn unknown(text: &str, word: &str) -> ApiError {
    ApiError::invalid(format!(
        "ps_args {text:?}: unknown option {word:?}; known are -e, -f, -F, aux and -o with a list of columns"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(text: &str) -> String {
        let columns = parse(text).unwrap();
        let titles = columns.iter().map(|(title, _)| title.as_str());
        titles.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_people_write() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        let of_users = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        for (text, wanted) in [
            ("-ef", full),
            ("-e -f", full),
            ("-fe", full),
            ("aux", of_users),
            ("axu", of_users),
            ("-aux", of_users),
            ("auxww", of_users),
            ("-F", "UID PID PPID C SZ RSS PSR STIME TTY TIME CMD"),
            ("ax", "PID TTY STAT TIME COMMAND"),
            ("-e", "PID TTY TIME CMD"),
            ("-o pid,user", "PID USER"),
            ("-eopid,user", "PID USER"),
            ("-eo pid,args -o comm", "PID COMMAND COMMAND"),
            ("o pid,%cpu=LOAD,rss", "PID LOAD RSS"),
            ("--format pid", "PID"),
            ("-e --format=pid,pcpu", "PID %CPU"),
        ] {
            assert_eq!(titles(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (text, words) in [
            ("-Q", "unknown option \"-Q\""),
            ("--forest", "unknown option \"--forest\""),
            ("-o", "a list of columns must follow -o"),
            ("-o pid,colour", "unknown column \"colour\""),
            ("-o pid,,user", "unknown column \"\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(words), "{text}: {error}");
        }
    }
}
