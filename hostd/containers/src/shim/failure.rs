//! Why a process was not executed, in the words for Docker's clients.

use keelson_shim_protocol::FailReason;

use crate::EngineError;

/// The words by which the docker command line chooses its exit code 126 or 127.
pub(super) fn start_failed(message: String, reason: FailReason) -> EngineError {
    let lower = message.to_ascii_lowercase();
    let hint = match reason {
        FailReason::NotFound
            if !lower.contains("executable file not found")
                && !lower.contains("no such file or directory")
                && !lower.contains("not a directory") =>
        {
            ": no such file or directory"
        }
        FailReason::NotExecutable
            if !["permission denied", "a directory", "exec format error"]
                .iter()
                .any(|said| lower.contains(said)) =>
        {
            ": permission denied"
        }
        // A file was mounted over a directory, or a directory over a file.
        FailReason::NotFound if lower.contains("not a directory") && lower.contains("mount") => {
            ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
        }
        _ => "",
    };
    EngineError::Start {
        message: format!("{message}{hint}"),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_failed_start_is_so() {
        let said = |message: &str, reason| match start_failed(message.to_owned(), reason) {
            EngineError::Start { message, reason } => (message, reason.exit_code()),
            other => panic!("{other}"),
        };
        for as_it_is in [
            "exec: \"/x\": exec format error",
            "exec: \"/x\": permission denied",
            "exec: \"/x\": is a directory: permission denied",
            "chdir to \"/etc/passwd\": Not a directory",
        ] {
            let expected = (as_it_is.to_owned(), 126);
            assert_eq!(said(as_it_is, FailReason::NotExecutable), expected);
        }
        // The command line knows no other words for its exit code 126.
        let (message, code) = said("exec: \"/x\": text file busy", FailReason::NotExecutable);
        assert_eq!(
            (message.as_str(), code),
            ("exec: \"/x\": text file busy: permission denied", 126)
        );
        let (message, code) = said("exec: \"x\": missing", FailReason::NotFound);
        assert_eq!(
            (message.as_str(), code),
            ("exec: \"x\": missing: no such file or directory", 127)
        );
    }

    #[test]
    fn messages_carry_the_words_that_clients_match() {
        let error = start_failed("exec \"x\"".to_owned(), FailReason::NotFound);
        assert!(error.to_string().contains("no such file or directory"));
        let error = start_failed("mount /a: Not a directory".to_owned(), FailReason::NotFound);
        assert!(error.to_string().contains("vice-versa"));
        let text = "exec: \"x\": executable file not found in $PATH".to_owned();
        let error = start_failed(text.clone(), FailReason::NotFound);
        assert!(error.to_string().ends_with(&text));
    }
}
