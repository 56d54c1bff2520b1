//! Starts a program directly in another cgroup.
//!
//! A process that is moved to another cgroup waits until all processors know (an RCU grace period,
//! several milliseconds). A process that is created there (`CLONE_INTO_CGROUP`) does not wait.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null;

use nix::errno::Errno;
use nix::libc;

use crate::clone::{CLONE_INTO_CGROUP, CLONE_PIDFD, CloneArgs};

/// The program to execute.
#[derive(Debug)]
pub struct Program<'a> {
    /// The file.
    pub path: &'a CStr,
    /// Its arguments; the first is its name.
    pub arguments: &'a [CString],
    /// Its environment, as `NAME=VALUE`.
    pub environment: &'a [CString],
    /// Its standard streams.
    pub streams: [BorrowedFd<'a>; 3],
    /// A directory of a cgroup2 mount; `None`: the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// The child's input, in the caller's memory.
#[repr(C)]
struct Plan {
    streams: [u64; 3],
    path: *const libc::c_char,
    arguments: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    open_files: *const KernelLimit,
}

/// The kernel's `struct rlimit64`.
#[repr(C)]
struct KernelLimit {
    soft: u64,
    hard: u64,
}

/// Starts a program and returns the process's identifier and a pidfd. The caller must reap it
/// (wait(2)). Other threads keep running. Signals that the caller ignores or blocks are also
/// ignored or blocked in the program. Descriptors that are not close-on-exec are inherited. A file
/// that can't be executed shows as an exit with code 127. If this process has raised its own limit
/// of open files ([`crate::open_files`]), the program gets the earlier limit.
///
/// # Errors
/// The kernel makes no process, for example because the cgroup is gone.
pub fn spawn(program: &Program<'_>) -> Result<(i32, OwnedFd), Errno> {
    /// The caller waits until the program was executed, and the child needs no copy of its memory.
    const SHARED: u64 = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    /// No signal handler of the caller may run in the child, because the memory is still the
    /// caller's.
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        let strings = list.iter().map(|text| text.as_ptr());
        strings.chain([null()]).collect()
    };
    let (arguments, environment) = (pointers(program.arguments), pointers(program.environment));
    let open_files = crate::open_files::original().map(|limit| KernelLimit {
        soft: limit.soft,
        hard: limit.hard,
    });
    let plan = Plan {
        streams: program.streams.map(|fd| fd.as_raw_fd() as u64),
        path: program.path.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        open_files: open_files.as_ref().map_or(null(), std::ptr::from_ref),
    };
    let mut pidfd: libc::c_int = -1;
    let mut request = CloneArgs {
        flags: SHARED | CLONE_CLEAR_SIGHAND | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = program.cgroup {
        request.flags |= CLONE_INTO_CGROUP;
        request.cgroup = cgroup.as_raw_fd() as u64;
    }
    let result: i64;
    // SAFETY: the child uses the caller's stack and memory, while the caller's thread waits
    // in the kernel. It only makes system calls, with values in registers: it neither touches the
    // stack nor leaves this block, and ends by execve or exit_group. Its input lives until the
    // block is left.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, [r12]",
            "xor esi, esi",
            "mov eax, {dup2}",
            "syscall",
            "mov rdi, [r12 + 8]",
            "mov esi, 1",
            "mov eax, {dup2}",
            "syscall",
            "mov rdi, [r12 + 16]",
            "mov esi, 2",
            "mov eax, {dup2}",
            "syscall",
            "mov rdx, [r12 + 48]",
            "test rdx, rdx",
            "jz 3f",
            "xor edi, edi",
            "mov esi, {nofile}",
            "xor r10d, r10d",
            "mov eax, {prlimit}",
            "syscall",
            "test rax, rax",
            "jnz 4f",
            "3:",
            "mov rdi, [r12 + 24]",
            "mov rsi, [r12 + 32]",
            "mov rdx, [r12 + 40]",
            "mov eax, {execve}",
            "syscall",
            "4:",
            "mov edi, 127",
            "mov eax, {exit_group}",
            "syscall",
            "ud2",
            "2:",
            dup2 = const libc::SYS_dup2,
            nofile = const libc::RLIMIT_NOFILE,
            prlimit = const libc::SYS_prlimit64,
            execve = const libc::SYS_execve,
            exit_group = const libc::SYS_exit_group,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const request,
            in("rsi") std::mem::size_of::<CloneArgs>(),
            in("r12") &raw const plan,
            lateout("r10") _,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 {
        return Err(Errno::from_raw(-result as i32));
    }
    // SAFETY: the kernel stored a new descriptor that nobody else owns.
    Ok((result as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;
    use crate::child;

    fn words(list: &[&str]) -> Vec<CString> {
        list.iter()
            .map(|word| CString::new(*word).unwrap())
            .collect()
    }

    /// Runs a program with its output in a pipe.
    fn run(path: &CStr, arguments: &[&str], environment: &[&str]) -> (String, i32) {
        let null = std::fs::File::open("/dev/null").unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (pid, _pidfd) = spawn(&Program {
            path,
            arguments: &words(arguments),
            environment: &words(environment),
            streams: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            cgroup: None,
        })
        .unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        (text, child::reap(pid).unwrap().code)
    }

    #[test]
    fn a_program_gets_its_arguments_environment_and_streams() {
        let script = "echo $NAME $0 $1; echo error >&2; cat; exit 7";
        let (text, code) = run(
            c"/bin/sh",
            &["sh", "-c", script, "zero", "one"],
            &["NAME=x"],
        );
        assert_eq!((text.as_str(), code), ("x zero one\nerror\n", 7));
    }

    #[test]
    fn a_program_gets_the_limit_of_open_files_from_before_it_was_raised() {
        let before = crate::open_files::current();
        let raised = crate::open_files::raise().unwrap();
        assert!(raised >= before.soft, "{raised} {before:?}");
        assert_eq!(crate::open_files::current().soft, raised);
        let (text, code) = run(c"/bin/sh", &["sh", "-c", "ulimit -Sn; ulimit -Hn"], &[]);
        assert_eq!(text, format!("{}\n{}\n", before.soft, before.hard));
        assert_eq!(code, 0);
    }

    #[test]
    fn a_file_that_cant_be_executed_ends_with_127() {
        assert_eq!(run(c"/nonexistent", &["x"], &[]), (String::new(), 127));
    }

    #[test]
    fn several_threads_may_start_programs_at_once() {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                std::thread::spawn(move || {
                    for _ in 0..20 {
                        let script = format!("exit {number}");
                        assert_eq!(run(c"/bin/sh", &["sh", "-c", &script], &[]).1, number);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
