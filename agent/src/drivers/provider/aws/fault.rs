//! What went wrong at Amazon's, told apart by whether asking again can help; and the client itself.

use super::{super::ProviderError, AwsConfig};
use sigv4_ec2::{Client, Error, ErrorCode};

/// For `map_err`: what was tried.
pub fn cloud(what: &'static str, source: Error) -> ProviderError {
    ProviderError::Cloud { what, is_final: false, source: Box::new(source) }
}

/// A launch that EC2 refuses for what it asks for is over: the next one is another decision, and may ask for something
/// else. Without an answer, or refused for who asks and when, it is only repeated.
pub fn launch(source: Error) -> ProviderError {
    use ErrorCode::{
        ImageMalformed, ImageNotFound, InstanceTypeInvalid, InvalidParameterCombination, InvalidParameterValue, KeyPairNotFound,
        MissingParameter, SubnetNotFound, Unsupported,
    };
    let is_final = source.code().is_some_and(|code| {
        let asks_wrongly = matches!(
            code,
            ImageNotFound
                | ImageMalformed
                | InstanceTypeInvalid
                | InvalidParameterValue
                | InvalidParameterCombination
                | KeyPairNotFound
                | MissingParameter
                | SubnetNotFound
                | Unsupported
        );
        // A profile is known everywhere only some seconds after it was made.
        let young = source.to_string().contains("Instance Profile");
        (asks_wrongly && !young) || code.is_capacity()
    });
    ProviderError::Cloud { what: "launch an instance", is_final: is_final && !source.is_ambiguous(), source: Box::new(source) }
}

pub fn is_unknown_instance(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::InstanceNotFound | ErrorCode::InstanceMalformed))
}

/// Whether somebody asked who may not.
pub fn is_denied(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Cloud { source, .. } if source.code().is_some_and(ErrorCode::is_denied))
}

/// A client whose credentials come from the environment, a profile, or the machine's role.
pub fn client(config: &AwsConfig) -> Result<Client, Error> {
    let mut builder = Client::builder(&config.region);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(profile) = &config.profile {
        builder = builder.profile(profile);
    }
    builder.build()
}
