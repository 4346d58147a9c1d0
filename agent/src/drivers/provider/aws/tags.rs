//! How we know our own: tags in a namespace that nobody else uses.

use crate::model::ids::{ClusterId, OperationId};
use sigv4_ec2::Tags;

/// Which cluster it belongs to; on everything we make.
pub const CLUSTER: &str = "disco:cluster-id";
/// Which decision launched it.
pub const OPERATION: &str = "disco:operation";
pub const ORDINAL: &str = "disco:ordinal";
/// What Amazon's console shows.
pub const NAME: &str = "Name";

/// On whatever belongs to a cluster.
pub fn of_cluster(cluster: ClusterId, name: &str) -> Tags {
    [(CLUSTER, cluster.to_string()), (NAME, shown(name))].map(|(key, value)| (key.to_owned(), value)).into()
}

/// On an instance and its disk.
pub fn of_instance(operation: OperationId, ordinal: u32, cluster_name: &str) -> Tags {
    let mut tags = of_cluster(operation.cluster, &format!("{cluster_name} n{ordinal}"));
    tags.insert(OPERATION.into(), operation.to_string());
    tags.insert(ORDINAL.into(), ordinal.to_string());
    tags
}

pub fn cluster_of(tags: &Tags) -> Option<ClusterId> {
    tags.get(CLUSTER)?.parse().ok()
}

pub fn operation_of(tags: &Tags) -> Option<OperationId> {
    tags.get(OPERATION)?.parse().ok()
}

pub fn ordinal_of(tags: &Tags) -> Option<u32> {
    tags.get(ORDINAL)?.parse().ok()
}

/// EC2 takes letters, digits, spaces and `+ - = . _ : / @` (Tag your Amazon EC2 resources, "Tag restrictions").
pub fn shown(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || " +-=._:/@".contains(c) { c } else { '-' }).take(200).collect()
}
