//! Drops privileges before serving. The process parses what containers send, so an attacker who
//! takes it over must gain nothing: no user that owns anything, no capability, no file.

use std::io;

use keelson_sys::sandbox;
use keelson_sys::seccomp::{self, Instruction};

/// A user and a group that own nothing and that no other program uses. Programs with the user
/// `nobody`, for example, could send signals to this process.
const NOBODY: u32 = 65_053;

/// Drops all privileges; open descriptors stay. The process must have one thread.
///
/// # Errors
/// The kernel refuses. The process must not serve then.
pub(crate) fn give_up() -> io::Result<()> {
    // Only root can change its user; others need not.
    if rustix::process::geteuid().is_root() {
        sandbox::set_groups(&[])?;
        sandbox::set_group(NOBODY)?;
        // The last step as root: all capabilities are lost with the user.
        sandbox::set_user(NOBODY)?;
    }
    sandbox::set_no_new_privileges()?;
    sandbox::set_undumpable()?;
    seccomp::install(&filter(), 0)?;
    Ok(())
}

/// Allowed system calls. All others fail with EPERM. None of these opens a file or creates a
/// process.
const ALLOWED: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    // SIOCGIFINDEX, FIONBIO.
    libc::SYS_ioctl,
    libc::SYS_listen,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // fstat of the C library.
    libc::SYS_newfstatat,
    libc::SYS_poll,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_write,
    libc::SYS_writev,
];

/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;

/// The filter as a program of the kernel's classic BPF: one comparison for each call.
fn filter() -> Vec<Instruction> {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;
    const FAIL: u32 = 0x0005_0000 | libc::EPERM as u32;
    // Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    let step = |code, jump_true, jump_false, operand| Instruction {
        code,
        jump_true,
        jump_false,
        operand,
    };
    let mut program = vec![
        step(LOAD, 0, 0, ARCH),
        step(EQUAL, 1, 0, ARCHITECTURE),
        step(RETURN, 0, 0, KILL),
        step(LOAD, 0, 0, NUMBER),
    ];
    for call in ALLOWED {
        // Numbers of the x32 interface have a further bit, so they do not match.
        program.push(step(EQUAL, 0, 1, u32::try_from(*call).unwrap_or(u32::MAX)));
        program.push(step(RETURN, 0, 0, ALLOW));
    }
    program.push(step(RETURN, 0, 0, FAIL));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Executes the program, as far as it goes.
    fn verdict(program: &[Instruction], architecture: u32, number: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                0x20 => {
                    value = if step.operand == 4 {
                        architecture
                    } else {
                        number
                    }
                }
                0x15 if value == step.operand => at += usize::from(step.jump_true),
                0x15 => at += usize::from(step.jump_false),
                _ => return step.operand,
            }
        }
    }

    #[test]
    fn files_processes_and_other_architectures_are_refused() {
        let program = filter();
        let verdict = |number: i64| verdict(&program, ARCHITECTURE, number as u32);
        for call in ALLOWED {
            assert_eq!(verdict(*call), 0x7fff_0000, "{call}");
        }
        for call in [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_execve,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_fork,
            libc::SYS_setns,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_io_uring_setup,
            libc::SYS_socket | 0x4000_0000,
        ] {
            assert_eq!(verdict(call), 0x0005_0001, "{call}");
        }
        let foreign = super::tests::verdict(&program, 0x4000_0003, libc::SYS_read as u32);
        assert_eq!(foreign, 0x8000_0000);
    }
}
