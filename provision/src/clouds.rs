//! Documents of the metadata services of clouds, without their transport.

pub mod azure;
pub mod gce;
pub mod openstack;
