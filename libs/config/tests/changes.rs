//! Changes while the machine runs: confirmed, taken back, interrupted; and the last good copy.

use std::fs;
use std::path::{Path, PathBuf};

use keelson_config::change::{self, Proposal, USUAL_WINDOW};
use keelson_config::schema::Effect;
use keelson_config::{
    ChangeError, HIDDEN, LayerKind, MOST_UNHEALTHY_STARTS, Sources, count_start, current, load,
    publish, save_last_good,
};

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn with(text: &str) -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(machine.operator().parent().unwrap()).unwrap();
        fs::write(machine.operator(), text).unwrap();
        machine
    }

    fn sources(&self) -> Sources {
        Sources::under(self.root.path())
    }

    fn operator(&self) -> PathBuf {
        self.root.path().join("etc/keelson/host.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.operator()).unwrap()
    }

    fn history(&self) -> Vec<String> {
        let directory = self.sources().state.join("config/history");
        let Ok(entries) = fs::read_dir(directory) else {
            return Vec::new();
        };
        let mut texts: Vec<(PathBuf, String)> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
            .collect();
        texts.sort();
        texts.into_iter().map(|(_, text)| text).collect()
    }

    /// As if another boot had made the change that waits.
    fn reboot(&self) {
        let path = self.sources().state.join("config/waiting.toml");
        let text = fs::read_to_string(&path).unwrap();
        let start = text.find("boot = \"").unwrap();
        let end = text[start..].find('\n').unwrap() + start;
        fs::write(
            &path,
            format!("{}boot = \"other\"{}", &text[..start], &text[end..]),
        )
        .unwrap();
    }
}

fn proposal(text: &str) -> Proposal {
    Proposal {
        drop_in: None,
        text: text.to_owned(),
    }
}

const MTU: &str = "hostname = 'a'\n[[network.link]]\nname = 'eth0'\ndhcp4 = true\nmtu = 1400\n";

#[test]
fn a_change_of_the_network_waits_and_is_confirmed() {
    let machine = Machine::with("hostname = 'a'\n");
    let sources = machine.sources();
    let applied = change::apply(&sources, &proposal(MTU), None).unwrap();
    assert_eq!(applied.confirm_within, Some(USUAL_WINDOW));
    assert_eq!(applied.loaded.config.network.link.len(), 1);
    assert_eq!(applied.changes.len(), 1);
    assert_eq!(applied.changes[0].field, "network.link");
    assert_eq!(applied.changes[0].effect, Effect::Now);
    assert!(applied.changes[0].can_lock_out);
    assert_eq!(machine.text(), MTU);

    // Nothing else may be changed meanwhile.
    let other = change::apply(&sources, &proposal("hostname = 'b'\n"), None);
    assert!(matches!(other, Err(ChangeError::Waits(_))));
    let waits = change::waiting(&sources).unwrap().unwrap();
    assert_eq!(waits.file, machine.operator());
    assert!(waits.left.as_secs() > 60);
    assert_eq!(change::expire(&sources).unwrap(), None);

    change::confirm(&sources).unwrap();
    assert_eq!(change::waiting(&sources).unwrap(), None);
    assert!(matches!(
        change::confirm(&sources),
        Err(ChangeError::NothingWaits)
    ));
    assert_eq!(machine.text(), MTU);

    let back = change::rollback(&sources).unwrap();
    assert_eq!(machine.text(), "hostname = 'a'\n");
    assert_eq!(back.changes.len(), 1);
    assert!(matches!(
        change::rollback(&sources),
        Err(ChangeError::NothingToTakeBack)
    ));
    assert_eq!(machine.history(), ["hostname = 'a'\n", MTU]);
}

#[test]
fn without_a_confirmation_the_former_file_comes_back_after_a_reboot() {
    let former = "# a comment that must survive\nhostname = 'a'\n";
    let machine = Machine::with(former);
    let sources = machine.sources();
    change::apply(&sources, &proposal(MTU), Some(3600)).unwrap();
    machine.reboot();
    assert!(matches!(
        change::confirm(&sources),
        Err(ChangeError::NothingWaits)
    ));
    let back = change::expire(&sources).unwrap().unwrap();
    assert_eq!(back.file, machine.operator());
    assert_eq!(machine.text(), former);
    assert_eq!(change::expire(&sources).unwrap(), None);
    // What the operator had written is kept, too.
    assert!(machine.history().contains(&MTU.to_owned()));
}

#[test]
fn a_wait_ends_by_itself() {
    let machine = Machine::with("hostname = 'a'\n");
    let sources = machine.sources();
    change::apply(&sources, &proposal("hostname = 'b'\n"), Some(1)).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while change::expire(&sources).unwrap().is_none() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(load(&sources).config.hostname.as_deref(), Some("a"));
}

#[test]
fn a_drop_in_that_was_new_is_removed_again() {
    let machine = Machine::with("hostname = 'a'\n");
    let sources = machine.sources();
    let drop_in = Proposal {
        drop_in: Some("50-site".to_owned()),
        text: "[api]\nlisten = []\n".to_owned(),
    };
    let applied = change::apply(&sources, &drop_in, None).unwrap();
    assert!(applied.loaded.config.api.listen.is_empty());
    let file = sources.operator_dir.join("50-site.toml");
    assert!(file.is_file());
    change::rollback(&sources).unwrap();
    assert!(!file.exists());

    for name in ["", "a/b", "..", "a.toml"] {
        let wrong = Proposal {
            drop_in: Some(name.to_owned()),
            text: String::new(),
        };
        assert!(matches!(
            change::diff(&sources, &wrong),
            Err(ChangeError::Name(_))
        ));
    }
}

#[test]
fn what_is_wrong_changes_nothing() {
    let machine = Machine::with("hostname = 'a'\n");
    let sources = machine.sources();
    for (text, place) in [
        ("hostname = 1\n", "host.toml:1: field hostname"),
        ("hostnam = 'b'\n", "did you mean \"hostname\""),
        (
            "\n[[command]]\nargv = ['/bin/true']\n",
            "host.toml:2: field command is not built yet",
        ),
        (
            "[[command]]\nargv = ['true']\n",
            "field command is not built yet",
        ),
    ] {
        let error = change::apply(&sources, &proposal(text), None).unwrap_err();
        assert!(matches!(error, ChangeError::Wrong(_)), "{error}");
        assert!(error.to_string().contains(place), "{error}");
        assert_eq!(
            change::validate(&sources, &proposal(text)).unwrap().len(),
            1
        );
    }
    assert!(matches!(
        change::apply(&sources, &proposal(""), Some(1_000_000)),
        Err(ChangeError::Window(_))
    ));
    assert_eq!(machine.text(), "hostname = 'a'\n");
    assert!(machine.history().is_empty());
}

#[test]
fn a_broken_file_can_be_replaced_by_a_good_one() {
    let machine = Machine::with("hostname = 'a'\n");
    let sources = machine.sources();
    save_last_good(&load(&sources), &sources).unwrap();
    fs::write(machine.operator(), "hostname = ").unwrap();
    assert!(load(&sources).operator_is_broken());
    let applied = change::apply(&sources, &proposal("hostname = 'b'\n"), None).unwrap();
    assert_eq!(applied.loaded.config.hostname.as_deref(), Some("b"));
    assert_eq!(applied.confirm_within, None);
}

#[test]
fn secrets_are_not_shown() {
    let machine = Machine::with("");
    let sources = machine.sources();
    let text = "[[file]]\npath = '/etc/secret'\ncontents = 'geheim'\n";
    let changes = change::diff(&sources, &proposal(text)).unwrap();
    let shown = format!("{changes:?}");
    assert!(
        shown.contains(HIDDEN) && !shown.contains("geheim"),
        "{shown}"
    );
    let wrong = "[[user]]\nname = 'a'\npassword_hash = ['geheim']\n";
    let problems = change::validate(&sources, &proposal(wrong)).unwrap();
    assert!(!format!("{problems:?}").contains("geheim"), "{problems:?}");
}

#[test]
fn a_configuration_that_does_not_become_healthy_is_given_up() {
    let machine = Machine::with("hostname = 'good'\n");
    let sources = machine.sources();
    save_last_good(&load(&sources), &sources).unwrap();
    fs::write(machine.operator(), "hostname = 'bad'\n").unwrap();
    for start in 0..MOST_UNHEALTHY_STARTS {
        let loaded = load(&sources);
        let boot = format!("boot {start}");
        // A boot counts once, however often it merges.
        count_start(&sources, &loaded, &boot).unwrap();
        count_start(&sources, &loaded, &boot).unwrap();
        assert_eq!(load(&sources).config.hostname.as_deref(), Some("bad"));
    }
    for start in 0..3 {
        count_start(&sources, &load(&sources), &format!("later {start}")).unwrap();
        let loaded = load(&sources);
        assert_eq!(loaded.config.hostname.as_deref(), Some("good"));
        assert_eq!(loaded.notices.len(), 1);
        assert!(
            loaded.notices[0].contains("3 starts"),
            "{:?}",
            loaded.notices
        );
        assert_eq!(loaded.origins["hostname"].layer, LayerKind::LastGood);
        // Nothing of it becomes the last good one.
        assert!(save_last_good(&loaded, &sources).is_err());
    }
    assert_eq!(machine.text(), "hostname = 'bad'\n");
    // Another text is tried again.
    fs::write(machine.operator(), "hostname = 'better'\n").unwrap();
    count_start(&sources, &load(&sources), "last").unwrap();
    let loaded = load(&sources);
    assert_eq!(loaded.config.hostname.as_deref(), Some("better"));
    save_last_good(&loaded, &sources).unwrap();
    assert!(!sources.state.join("config/starts.toml").exists());
}

#[test]
fn a_published_document_is_read_back() {
    let machine = Machine::with("hostname = 'a'\n[sysctl]\n\"vm.swappiness\" = 10\n[bad");
    let sources = machine.sources();
    fs::create_dir_all(sources.image.parent().unwrap()).unwrap();
    fs::write(
        &sources.image,
        "[engine.runtimes.crun]\npath = '/usr/bin/crun'\n[[command]]\nargv=['a']\n",
    )
    .unwrap();
    let loaded = load(&sources);
    assert_eq!(loaded.problems.len(), 2, "{:?}", loaded.problems);
    publish(&sources, &loaded).unwrap();
    assert_eq!(current(&sources), loaded);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&sources.effective).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // It is what counts until it is made anew; one that is damaged is passed over.
    fs::write(machine.operator(), "hostname = 'b'\n").unwrap();
    assert_eq!(current(&sources), loaded);
    fs::write(&sources.effective, "version = 9\n").unwrap();
    assert_eq!(current(&sources).config.hostname.as_deref(), Some("b"));
    assert_eq!(
        load(&sources).origins["hostname"].file.as_deref(),
        Some(Path::new(&machine.operator()))
    );
}
