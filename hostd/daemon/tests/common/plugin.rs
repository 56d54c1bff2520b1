//! A volume plugin on threads of the test: it keeps volumes in directories, and can be set to fail
//! or to stay silent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

/// The reaction of a plugin to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Works,
    /// It answers nothing until its mood changes.
    Silent,
    /// It refuses everything except its activation.
    Refuses,
}

/// Stops on drop; the volumes are kept.
pub struct Plugin {
    socket: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    base: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    over: AtomicBool,
}

struct State {
    mood: Mood,
    /// The volumes, each with its options and the users for which it is mounted.
    volumes: BTreeMap<String, (Value, BTreeSet<String>)>,
    /// A request: the method, the volume and the user.
    calls: Vec<String>,
}

impl Plugin {
    /// Listens on NAME.sock in a directory, which is created.
    pub fn start(directory: &Path, name: &str) -> Self {
        fs::create_dir_all(directory).unwrap();
        let socket = directory.join(format!("{name}.sock"));
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let base = directory.join(format!("{name}-volumes"));
        fs::create_dir_all(&base).unwrap();
        let shared = Arc::new(Shared {
            base,
            state: Mutex::new(State {
                mood: Mood::Works,
                volumes: BTreeMap::new(),
                calls: Vec::new(),
            }),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.over.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || drop(shared.serve(&stream.unwrap())));
            }
        });
        Self { socket, shared }
    }

    pub fn set_mood(&self, mood: Mood) {
        self.shared.state.lock().unwrap().mood = mood;
        self.shared.changed.notify_all();
    }

    /// Adds a volume without hostd's knowledge.
    pub fn add(&self, name: &str) {
        let mut state = self.shared.state.lock().unwrap();
        state.volumes.insert(name.to_owned(), Default::default());
        fs::create_dir_all(self.data(name)).unwrap();
    }

    /// Removes a volume without hostd's knowledge.
    pub fn lose(&self, name: &str) {
        self.shared.state.lock().unwrap().volumes.remove(name);
    }

    pub fn has(&self, name: &str) -> bool {
        self.shared.state.lock().unwrap().volumes.contains_key(name)
    }

    /// The users for which a volume is mounted.
    pub fn users(&self, name: &str) -> Vec<String> {
        let state = self.shared.state.lock().unwrap();
        let users = state.volumes.get(name).map(|(_, users)| users.clone());
        users.into_iter().flatten().collect()
    }

    /// How often a request was received.
    pub fn count(&self, call: &str) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.calls.iter().filter(|found| *found == call).count()
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.shared.data(name)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.set_mood(Mood::Works);
        // Wakes the thread that accepts.
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
    }
}

impl Shared {
    fn data(&self, name: &str) -> PathBuf {
        self.base.join(name.replace('/', "+"))
    }

    fn serve(&self, mut stream: &UnixStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first)?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(number) = line.strip_prefix("Content-Length: ") {
                length = number.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let method = first.split(' ').nth(1).unwrap_or_default();
        let (status, answer) = self.answer(
            method.trim_start_matches('/'),
            &serde_json::from_slice(&body)?,
        );
        let text = answer.to_string();
        write!(
            stream,
            "HTTP/1.1 {status} Said\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n",
            text.len()
        )
    }

    fn answer(&self, method: &str, asked: &Value) -> (u16, Value) {
        let text = |member: &str| asked[member].as_str().unwrap_or_default().to_owned();
        let (name, user) = (text("Name"), text("ID"));
        let mut state = self.state.lock().unwrap();
        let call = format!("{method} {name} {user}");
        state.calls.push(call.trim_end().to_owned());
        while state.mood == Mood::Silent {
            state = self.changed.wait(state).unwrap();
        }
        let refused = (500, json!({"Err": "it does not want to"}));
        if state.mood == Mood::Refuses && method != "Plugin.Activate" {
            return refused;
        }
        let data = self.data(&name);
        let shown = |name: &str| {
            json!({"Name": name, "Mountpoint": self.data(name),
                "CreatedAt": "2020-01-02T03:04:05Z", "Status": {"kept": "here"}})
        };
        let ok = |answer: Value| (200, answer);
        match method {
            "Plugin.Activate" => ok(json!({"Implements": ["VolumeDriver"]})),
            "VolumeDriver.Capabilities" => ok(json!({"Capabilities": {"Scope": "global"}})),
            "VolumeDriver.List" => {
                let all: Vec<_> = state.volumes.keys().map(|name| shown(name)).collect();
                ok(json!({"Volumes": all, "Err": ""}))
            }
            "VolumeDriver.Create" => {
                fs::create_dir_all(data).unwrap();
                let made = (asked["Opts"].clone(), BTreeSet::new());
                state.volumes.insert(name, made);
                ok(json!({"Err": ""}))
            }
            _ => {
                let Some((_, users)) = state.volumes.get_mut(&name) else {
                    return ok(json!({"Err": format!("{name} is not here")}));
                };
                match method {
                    "VolumeDriver.Get" => ok(json!({"Volume": shown(&name)})),
                    "VolumeDriver.Path" => ok(json!({"Mountpoint": data})),
                    "VolumeDriver.Mount" => match users.insert(user) {
                        true => ok(json!({"Mountpoint": data})),
                        false => refused,
                    },
                    "VolumeDriver.Unmount" => match users.remove(&user) {
                        true => ok(json!({})),
                        false => refused,
                    },
                    "VolumeDriver.Remove" => {
                        state.volumes.remove(&name);
                        let _ = fs::remove_dir_all(data);
                        ok(json!({}))
                    }
                    _ => (404, json!({"Err": "what?"})),
                }
            }
        }
    }
}
