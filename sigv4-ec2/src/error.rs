//! What can go wrong with a call, told apart by what a caller can do about it.

use crate::{SignError, credentials::CredentialsError};
use std::fmt;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service answered no. Nothing was done unless [`ErrorCode::is_server_fault`].
    #[error("{action} was refused: {code}{}{}", if message.is_empty() { "" } else { ": " }, message)]
    Api {
        /// The API's name of the operation.
        action: &'static str,
        /// HTTP status.
        status: u16,
        /// What is wrong, as a word.
        code: ErrorCode,
        /// What is wrong, for people; at most 2 KiB, and never with our secrets.
        message: String,
        /// What Amazon's support asks for.
        request_id: Option<String>,
    },
    /// No answer came in time. The service may have done it.
    #[error("{action} got no answer from {endpoint}")]
    Transport {
        /// The API's name of the operation.
        action: &'static str,
        /// Who was asked.
        endpoint: String,
        /// Whether it is certain that the service never saw the request.
        unsent: bool,
        /// What broke.
        source: Box<ureq::Error>,
    },
    /// An answer came that makes no sense.
    #[error("the answer to {action} cannot be read: {wrong}")]
    Reply {
        /// The API's name of the operation.
        action: &'static str,
        /// What is wrong with it; at most 2 KiB.
        wrong: String,
    },
    /// A parameter that the service would refuse, so it is not asked.
    #[error("{action}: {wrong}")]
    Parameter {
        /// The API's name of the operation.
        action: &'static str,
        /// The parameter and its bound.
        wrong: String,
    },
    /// More pages than are read: a hundred, of a hundred things each.
    #[error("{action} goes on after {pages} pages; narrow its filters")]
    TooManyPages {
        /// The API's name of the operation.
        action: &'static str,
        /// Pages read.
        pages: u32,
    },
    /// There is nothing to sign with.
    #[error("no AWS credentials for {action}")]
    Credentials {
        /// The API's name of the operation.
        action: &'static str,
        /// Where was looked, and what was found there.
        source: CredentialsError,
    },
    /// The endpoint is no address.
    #[error("{action} cannot be signed")]
    Sign {
        /// The API's name of the operation.
        action: &'static str,
        /// What is wrong with it.
        source: SignError,
    },
    /// A file that a setting names cannot be used.
    #[error("cannot use {setting}")]
    Setting {
        /// The setting and its value.
        setting: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An error's text that is kept, bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// The beginning of what a service said: an error lives longer than the answer that it came with.
pub(crate) fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text.shrink_to_fit();
    text
}

impl Error {
    /// An answer that makes no sense; `wrong` may repeat some of it.
    pub(crate) fn reply(action: &'static str, wrong: String) -> Error {
        Error::Reply { action, wrong: shortened(wrong) }
    }

    /// The service's word for what is wrong, if it was the service that refused.
    pub fn code(&self) -> Option<&ErrorCode> {
        match self {
            Error::Api { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code().is_some_and(ErrorCode::is_not_found)
    }

    /// Whether what shall be made exists already.
    pub fn is_duplicate(&self) -> bool {
        self.code().is_some_and(ErrorCode::is_duplicate)
    }

    /// Whether this is the good answer to a dry run.
    pub fn is_dry_run_passed(&self) -> bool {
        self.code() == Some(&ErrorCode::DryRunOperation)
    }

    /// Whether the service may have done it all the same.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Api { status, code, .. } => is_broken(*status, code),
            Error::Transport { unsent, .. } => !unsent,
            Error::Reply { .. } => true,
            _ => false,
        }
    }
}

/// Whether the service broke. It says with 500 as well that it has no machines left, and with 503 that it is asked too often:
/// then it did nothing, and knows it.
pub(crate) fn is_broken(status: u16, code: &ErrorCode) -> bool {
    (status >= 500 || code.is_server_fault()) && !code.is_throttling() && !code.is_capacity()
}

/// Makes the enum and both ways between a code and its text, so that they cannot differ.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// An error code of EC2, IAM or what they have in common; what we have no name for keeps its own.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// Any other, as it came.
            Other(String),
        }

        impl ErrorCode {
            /// Never fails: an unknown one is [`ErrorCode::Other`].
            pub fn parse(text: &str) -> ErrorCode {
                match text {
                    $($text => ErrorCode::$name,)*
                    other => ErrorCode::Other(other.chars().take(128).collect()),
                }
            }

            /// As the service wrote it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(ErrorCode::$name => $text,)*
                    ErrorCode::Other(text) => text,
                }
            }
        }
    };
}

codes! {
    /// The key or its signature is wrong.
    AuthFailure = "AuthFailure",
    /// The key is unknown.
    InvalidClientTokenId = "InvalidClientTokenId",
    /// The signature is wrong: a wrong secret, or a wrong clock.
    SignatureDoesNotMatch = "SignatureDoesNotMatch",
    /// The clock is off by more than five minutes.
    RequestExpired = "RequestExpired",
    /// The same, in the words of other services.
    RequestTimeTooSkewed = "RequestTimeTooSkewed",
    /// A session's time is over.
    ExpiredToken = "ExpiredToken",
    /// The same, in the words of other services.
    ExpiredTokenException = "ExpiredTokenException",
    /// The account is not allowed to do that.
    UnauthorizedOperation = "UnauthorizedOperation",
    /// The same, in IAM's words.
    AccessDenied = "AccessDenied",
    /// The account has not said yes to something.
    OptInRequired = "OptInRequired",
    /// A dry run that would have worked.
    DryRunOperation = "DryRunOperation",

    /// Too many calls.
    RequestLimitExceeded = "RequestLimitExceeded",
    /// Too many calls.
    Throttling = "Throttling",
    /// Too many calls.
    ThrottlingException = "ThrottlingException",
    /// Too many calls.
    Ec2ThrottledException = "EC2ThrottledException",
    /// Broken over there.
    InternalError = "InternalError",
    /// Broken over there.
    InternalFailure = "InternalFailure",
    /// Broken over there.
    Unavailable = "Unavailable",
    /// Broken over there.
    ServiceUnavailable = "ServiceUnavailable",

    /// The same client token with other parameters.
    IdempotentParameterMismatch = "IdempotentParameterMismatch",
    /// No machines of this type are left there.
    InsufficientInstanceCapacity = "InsufficientInstanceCapacity",
    /// The account has as many as it may.
    InstanceLimitExceeded = "InstanceLimitExceeded",
    /// The account has as many as it may, counted in processors.
    VcpuLimitExceeded = "VcpuLimitExceeded",
    /// The account has as many spot instances as it may.
    MaxSpotInstanceCountExceeded = "MaxSpotInstanceCountExceeded",
    /// Spot costs more than was offered.
    SpotMaxPriceTooLow = "SpotMaxPriceTooLow",
    /// The account has as many addresses as it may.
    AddressLimitExceeded = "AddressLimitExceeded",
    /// This type does not exist in this region or zone.
    Unsupported = "Unsupported",
    /// The instance is in a state that does not allow it.
    IncorrectInstanceState = "IncorrectInstanceState",
    /// The instance is in a state that does not allow it.
    IncorrectState = "IncorrectState",

    /// A parameter has a value that it cannot have.
    InvalidParameterValue = "InvalidParameterValue",
    /// Parameters contradict each other.
    InvalidParameterCombination = "InvalidParameterCombination",
    /// A parameter is missing.
    MissingParameter = "MissingParameter",
    /// There is no such instance, or not yet.
    InstanceNotFound = "InvalidInstanceID.NotFound",
    /// That is no instance id.
    InstanceMalformed = "InvalidInstanceID.Malformed",
    /// There is no such image.
    ImageNotFound = "InvalidAMIID.NotFound",
    /// That is no image id.
    ImageMalformed = "InvalidAMIID.Malformed",
    /// There is no such key pair.
    KeyPairNotFound = "InvalidKeyPair.NotFound",
    /// There is a key pair of this name.
    KeyPairDuplicate = "InvalidKeyPair.Duplicate",
    /// That is no public key.
    KeyFormat = "InvalidKey.Format",
    /// There is no such security group, or not yet.
    GroupNotFound = "InvalidGroup.NotFound",
    /// The same, by id.
    GroupIdNotFound = "InvalidGroupId.NotFound",
    /// There is a security group of this name.
    GroupDuplicate = "InvalidGroup.Duplicate",
    /// An instance still uses the security group.
    GroupInUse = "InvalidGroup.InUse",
    /// Something else still uses it.
    DependencyViolation = "DependencyViolation",
    /// The rule is there already.
    PermissionDuplicate = "InvalidPermission.Duplicate",
    /// The rule is not there.
    PermissionNotFound = "InvalidPermission.NotFound",
    /// There is no such address.
    AddressNotFound = "InvalidAddress.NotFound",
    /// There is no such allocation.
    AllocationNotFound = "InvalidAllocationID.NotFound",
    /// There is no such association.
    AssociationNotFound = "InvalidAssociationID.NotFound",
    /// The address still belongs to an instance.
    AddressInUse = "InvalidIPAddress.InUse",
    /// There is no such subnet.
    SubnetNotFound = "InvalidSubnetID.NotFound",
    /// There is no such network.
    VpcNotFound = "InvalidVpcID.NotFound",
    /// There is no such type.
    InstanceTypeInvalid = "InvalidInstanceType",
    /// IAM: there is no such role, profile or policy.
    NoSuchEntity = "NoSuchEntity",
    /// IAM: there is one of this name.
    EntityAlreadyExists = "EntityAlreadyExists",
    /// IAM: it still holds something.
    DeleteConflict = "DeleteConflict",
    /// IAM: somebody else changes it now.
    ConcurrentModification = "ConcurrentModification",
}

impl ErrorCode {
    /// Asked too often: nothing was done, ask again later.
    pub fn is_throttling(&self) -> bool {
        use ErrorCode::{Ec2ThrottledException, RequestLimitExceeded, Throttling, ThrottlingException};
        matches!(self, RequestLimitExceeded | Throttling | ThrottlingException | Ec2ThrottledException)
    }

    /// The service broke: it may have been done.
    pub fn is_server_fault(&self) -> bool {
        use ErrorCode::{InternalError, InternalFailure, ServiceUnavailable, Unavailable};
        matches!(self, InternalError | InternalFailure | Unavailable | ServiceUnavailable)
    }

    /// What was asked for does not exist, or is not seen yet.
    pub fn is_not_found(&self) -> bool {
        self.as_str().ends_with(".NotFound") || *self == ErrorCode::NoSuchEntity
    }

    /// It exists already.
    pub fn is_duplicate(&self) -> bool {
        self.as_str().ends_with(".Duplicate") || *self == ErrorCode::EntityAlreadyExists
    }

    /// No room for the machine, or too dear: another type, zone or market may do.
    pub fn is_capacity(&self) -> bool {
        use ErrorCode::{InstanceLimitExceeded, InsufficientInstanceCapacity, MaxSpotInstanceCountExceeded, SpotMaxPriceTooLow};
        let known =
            matches!(self, InsufficientInstanceCapacity | MaxSpotInstanceCountExceeded | SpotMaxPriceTooLow | InstanceLimitExceeded);
        known || *self == ErrorCode::VcpuLimitExceeded
    }

    /// The key is not good, or not for this.
    pub fn is_denied(&self) -> bool {
        use ErrorCode::{AccessDenied, AuthFailure, InvalidClientTokenId, OptInRequired, SignatureDoesNotMatch, UnauthorizedOperation};
        let known = matches!(self, AuthFailure | InvalidClientTokenId | SignatureDoesNotMatch | UnauthorizedOperation | AccessDenied);
        known || *self == OptInRequired
    }

    /// Said of a clock that is wrong, among other things.
    pub(crate) fn may_be_clock(&self) -> bool {
        use ErrorCode::{AuthFailure, RequestExpired, RequestTimeTooSkewed, SignatureDoesNotMatch};
        matches!(self, RequestExpired | RequestTimeTooSkewed | SignatureDoesNotMatch | AuthFailure)
    }

    /// Said of a session that is over.
    pub(crate) fn may_be_expired(&self) -> bool {
        matches!(self, ErrorCode::ExpiredToken | ErrorCode::ExpiredTokenException | ErrorCode::RequestExpired)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_keeps_its_text_also_an_unknown_one() {
        for text in ["AuthFailure", "InvalidInstanceID.NotFound", "EC2ThrottledException", "SomethingNew", ""] {
            assert_eq!(ErrorCode::parse(text).as_str(), text);
        }
        assert_eq!(ErrorCode::parse("InvalidVolume.NotFound"), ErrorCode::Other("InvalidVolume.NotFound".to_owned()));
        assert!(ErrorCode::parse("InvalidVolume.NotFound").is_not_found());
    }
}
