//! Users and groups by name: passwd(5) and group(5).

/// The number of a user in the text of /etc/passwd, or of a group in that of /etc/group: the third
/// field of both. Of several entries with this name the first one counts, as for the C library.
#[must_use]
pub fn id(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up() {
        let groups = "root:x:0:\nbroken\ndocker:x:103:a,b\nkvm:x:q:\ndocker:x:104:\n";
        assert_eq!(id(groups, "docker"), Some(103));
        assert_eq!(id(groups, "dock"), None);
        assert_eq!(id(groups, "broken"), None);
        assert_eq!(id(groups, "kvm"), None);
        assert_eq!(id("core:x:500:501:::\n", "core"), Some(500));
        assert_eq!(id("", ""), None);
    }
}
