//! What librdkafka's errors mean for whom.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::{AbortCause, BrokerError};

/// An error in words, without the names of Rust types.
pub(super) fn text(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, key, value) => format!("property {key}={value}: {description}"),
        KafkaError::ClientCreation(description) => description.clone(),
        KafkaError::Transaction(error) => format!("{} ({})", error.string(), error.name()),
        _ => error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string()),
    }
}

/// What a failed step of a transaction asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Ask again.
    Retry,
    /// Abort the transaction, for this cause.
    Abort(AbortCause),
    /// Somebody else has the transactional id.
    Fenced,
    /// It will never work.
    Fatal,
    /// Nobody knows: a new producer.
    Unknown,
}

/// The reaction to an error before the end of the transaction was asked for.
pub(super) fn reaction(error: &KafkaError) -> Reaction {
    let Some(code) = error.rdkafka_error_code() else {
        return Reaction::Unknown;
    };
    let (fatal, retriable) = match error {
        KafkaError::Transaction(error) => (error.is_fatal(), error.is_retriable()),
        _ => (false, false),
    };
    match by_code(code) {
        // A fencing error is fatal even when it arrives marked abortable; and the group's refusals ask for a rejoin even when marked fatal.
        Some(reaction) => reaction,
        None if fatal => Reaction::Unknown,
        None if retriable => Reaction::Retry,
        None => Reaction::Abort(AbortCause::Refused),
    }
}

fn by_code(code: Code) -> Option<Reaction> {
    Some(match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Reaction::Fenced,
        Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId | Code::RebalanceInProgress => Reaction::Abort(AbortCause::Rejoin),
        Code::TransactionalIdAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::Authentication
        | Code::SaslAuthenticationFailed => Reaction::Fatal,
        Code::InvalidTransactionTimeout => Reaction::Fatal,
        Code::InvalidTransactionalState | Code::InvalidProducerIdMapping | Code::UnknownProducerId => Reaction::Unknown,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut => Reaction::Abort(AbortCause::TimedOut),
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            Reaction::Abort(AbortCause::Unavailable)
        }
        _ => return None,
    })
}

/// An error of a question.
pub(super) fn broker_error(error: &KafkaError) -> BrokerError {
    match error.rdkafka_error_code() {
        Some(
            Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::UnstableOffsetCommit
            | Code::WaitingForCoordinator,
        ) => BrokerError::Unavailable(text(error)),
        _ => BrokerError::Refused(text(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_error_has_its_reaction() {
        let of = |code| reaction(&KafkaError::MessageProduction(code));
        assert_eq!(of(Code::ProducerFenced), Reaction::Fenced);
        assert_eq!(of(Code::InvalidProducerEpoch), Reaction::Fenced);
        assert_eq!(of(Code::IllegalGeneration), Reaction::Abort(AbortCause::Rejoin));
        assert_eq!(of(Code::RebalanceInProgress), Reaction::Abort(AbortCause::Rejoin));
        assert_eq!(of(Code::MessageSizeTooLarge), Reaction::Abort(AbortCause::Refused));
        assert_eq!(of(Code::MessageTimedOut), Reaction::Abort(AbortCause::TimedOut));
        assert_eq!(of(Code::TransactionalIdAuthorizationFailed), Reaction::Fatal);
        assert_eq!(of(Code::InvalidTransactionalState), Reaction::Unknown);
        assert_eq!(reaction(&KafkaError::Canceled), Reaction::Unknown);
    }

    #[test]
    fn an_unreachable_broker_is_worth_waiting_for_and_a_refusal_is_not() {
        assert!(matches!(
            broker_error(&KafkaError::MetadataFetch(Code::BrokerTransportFailure)),
            BrokerError::Unavailable(_)
        ));
        assert!(matches!(
            broker_error(&KafkaError::MetadataFetch(Code::TopicAuthorizationFailed)),
            BrokerError::Refused(_)
        ));
    }
}
