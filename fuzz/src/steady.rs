//! A driver without coverage: inputs are made of seeds, words and chance, always the same ones for
//! the same number. A target that panics or does not end is reported with its input.
//!
//! ```sh
//! cargo run --package keelson-fuzz --bin layer_archive -- --seconds 60 --seed 7
//! cargo run --package keelson-fuzz --bin layer_archive -- fuzz/artifacts/layer_archive-…
//! ```

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest input that is made, in bytes. Seeds may be longer.
const LONGEST: usize = 4096;
/// How long one input may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// This package.
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// The command line.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    time: Duration,
    seed: u64,
    /// Inputs to run once each, instead.
    files: Vec<PathBuf>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            time: Duration::from_secs(3),
            seed: 1,
            files: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value = arguments.next().unwrap_or_default();
                let wrong = format!("{argument}: {value:?} is no whole number");
                value.parse::<u64>().map_err(|_| wrong)
            };
            match argument.as_str() {
                "--seconds" => options.time = Duration::from_secs(number()?),
                "--seed" => options.seed = number()?,
                other if other.starts_with('-') => {
                    return Err(format!(
                        "{other} is unknown: [--seconds N] [--seed N] [FILE...]"
                    ));
                }
                file => options.files.push(file.into()),
            }
        }
        Ok(options)
    }
}

/// Runs a target until the time is over or it fails.
pub fn main(name: &str, target: impl Fn(&[u8])) -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let current = Arc::new(Mutex::new((Instant::now(), Vec::new())));
    watch(name, &current);
    let begin = Instant::now();
    let mut count = 0_u64;
    let mut inputs = Inputs::of(name, &options);
    while let Some(input) = inputs.next(begin) {
        *current.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), input.clone());
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            eprintln!(
                "{name}: input {count} of seed {} fails: {}",
                options.seed,
                kept(name, &input)
            );
            return ExitCode::FAILURE;
        }
        count += 1;
    }
    eprintln!(
        "{name}: {count} inputs of seed {} in {:.1} s",
        options.seed,
        begin.elapsed().as_secs_f64()
    );
    // A target that could try next to nothing shows nothing.
    if options.files.is_empty() && count < 10 {
        eprintln!("{name}: that is too few");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Ends the program when one input takes too long.
fn watch(name: &str, current: &Arc<Mutex<(Instant, Vec<u8>)>>) {
    let (name, current) = (name.to_owned(), Arc::clone(current));
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(PATIENCE / 4);
            let (since, input) = &*current.lock().unwrap_or_else(PoisonError::into_inner);
            if since.elapsed() > PATIENCE {
                let place = kept(&name, input);
                eprintln!("{name}: an input takes longer than {PATIENCE:?}: {place}");
                std::process::exit(1);
            }
        }
    });
}

/// Keeps an input for the person who investigates it, and prints its path.
fn kept(name: &str, input: &[u8]) -> String {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let directory = Path::new(PACKAGE).join("artifacts");
    let file = directory.join(format!("{name}-{hash:016x}"));
    let written = fs::create_dir_all(&directory).and_then(|()| fs::write(&file, input));
    match written {
        Ok(()) => file.display().to_string(),
        Err(error) => format!("{error}; the input is {input:?}"),
    }
}

/// Where inputs come from.
struct Inputs {
    files: Option<Vec<PathBuf>>,
    time: Duration,
    random: Random,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    /// How many seeds were given as they are.
    given: usize,
}

impl Inputs {
    fn of(name: &str, options: &Options) -> Self {
        let package = Path::new(PACKAGE);
        let dictionary = package.join("dictionaries").join(format!("{name}.dict"));
        Self {
            files: (!options.files.is_empty()).then(|| {
                let mut files = options.files.clone();
                files.reverse();
                files
            }),
            time: options.time,
            random: Random(options.seed),
            seeds: seeds(&package.join("seeds").join(name)),
            words: words(&fs::read_to_string(dictionary).unwrap_or_default()),
            given: 0,
        }
    }

    fn next(&mut self, begin: Instant) -> Option<Vec<u8>> {
        if let Some(files) = &mut self.files {
            let file = files.pop()?;
            return match fs::read(&file) {
                Ok(input) => Some(input),
                Err(error) => panic!("read {}: {error}", file.display()),
            };
        }
        if let Some(seed) = self.seeds.get(self.given) {
            self.given += 1;
            return Some(seed.clone());
        }
        (begin.elapsed() < self.time).then(|| self.make())
    }

    /// Mostly a seed with some changes, sometimes bytes by chance.
    fn make(&mut self) -> Vec<u8> {
        let mut input = match self.seeds.len() {
            0 => self.noise(),
            _ if self.random.below(8) == 0 => self.noise(),
            count => self.seeds[self.random.below(count)].clone(),
        };
        for _ in 0..self.random.below(8) {
            self.change(&mut input);
        }
        input
    }

    fn noise(&mut self) -> Vec<u8> {
        let longest = [8, 64, 512, LONGEST][self.random.below(4)];
        let length = self.random.below(longest + 1);
        // Texts as well as bytes.
        let text = self.random.below(2) == 0;
        let mut byte = || match (text, self.random.below(256)) {
            (true, value) => b' ' + (value % 95) as u8,
            (false, value) => value as u8,
        };
        (0..length).map(|_| byte()).collect()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len() + 1);
        let end = (at + 1 + self.random.below(16)).min(input.len());
        match self.random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.random.below(8),
            1 if at < input.len() => {
                input[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'/', b'"'][self.random.below(8)];
            }
            2 => drop(input.drain(at.min(end)..end)),
            3 => {
                let part = input[at.min(end)..end].to_vec();
                input.splice(at..at, part);
            }
            4 => input.truncate(at),
            5 if !self.words.is_empty() => {
                let word = self.words[self.random.below(self.words.len())].clone();
                let over = (at + word.len()).min(input.len());
                // Replaces bytes, or inserts them.
                let over = [at, over][self.random.below(2)];
                input.splice(at..over, word);
            }
            6 if !self.seeds.is_empty() => {
                let other = &self.seeds[self.random.below(self.seeds.len())];
                let from = self.random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let bytes: Vec<u8> = (0..=self.random.below(4))
                    .map(|_| self.random.below(256) as u8)
                    .collect();
                input.splice(at..at, bytes);
            }
        }
    }
}

/// The files of a directory, which need not exist, in the order of their names.
fn seeds(directory: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read(file).ok())
        .collect()
}

/// The words of a dictionary of libFuzzer: `name="word"`, with `\\`, `\"` and `\xAB`.
fn words(text: &str) -> Vec<Vec<u8>> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            let (_, word) = line.split_once('"').filter(|_| !line.starts_with('#'))?;
            Some(unescaped(word.strip_suffix('"')?))
        })
        .collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let number = rest.strip_prefix("\\x").and_then(|digits| digits.get(..2));
        if let Some(byte) = number.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &rest[4..];
        } else if first == '\\' && rest.len() > 1 {
            rest = &rest[1..];
            let escaped = rest.chars().next().map_or(0, char::len_utf8);
            bytes.extend_from_slice(&rest.as_bytes()[..escaped]);
            rest = &rest[escaped..];
        } else {
            bytes.extend_from_slice(&rest.as_bytes()[..first.len_utf8()]);
            rest = &rest[first.len_utf8()..];
        }
    }
    bytes
}

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(seed: u64) -> Vec<Vec<u8>> {
        let options = Options::parse(["--seed".to_owned(), seed.to_string()].into_iter()).unwrap();
        let mut inputs = Inputs::of("runtime_config", &options);
        assert!(inputs.seeds.len() > 3 && inputs.words.len() > 20);
        let given = inputs.seeds.len();
        let made: Vec<_> = (0..200)
            .map_while(|_| inputs.next(Instant::now()))
            .collect();
        assert_eq!(made[..given], inputs.seeds[..]);
        made
    }

    #[test]
    fn inputs_are_many_and_the_same_for_the_same_number() {
        let made = inputs(7);
        assert_eq!(made.len(), 200);
        assert_eq!(made, inputs(7));
        assert_ne!(made, inputs(8));
        let mut different = made;
        different.sort();
        different.dedup();
        assert!(different.len() > 150, "{}", different.len());
    }

    #[test]
    fn dictionaries_are_read() {
        let text = "# comment \"x\"\nname=\"a\\\"b\"\n\"\\x41\\\\\"\nnothing\n";
        assert_eq!(words(text), [b"a\"b".to_vec(), b"A\\".to_vec()]);
    }

    #[test]
    fn the_command_line_is_read() {
        let parse = |words: &[&str]| Options::parse(words.iter().map(|w| (*w).to_owned()));
        let options = parse(&["--seconds", "9", "file"]).unwrap();
        assert_eq!(options.time, Duration::from_secs(9));
        assert_eq!(options.files, [PathBuf::from("file")]);
        assert!(parse(&["--seconds", "x"]).unwrap_err().contains("\"x\""));
        assert!(parse(&["--other"]).is_err());
    }
}
