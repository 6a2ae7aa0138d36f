package leeway.peers;

/** What is watched, and how it is judged. */
record Monitor(
    String applicationId,
    String topic,
    int size,
    int every,
    int minSamples,
    double possibleDrift,
    double drift,
    double epsilon,
    Reference reference) {

    enum Status {
        NO_DRIFT("no_drift"),
        POSSIBLE_DRIFT("possible_drift"),
        DRIFT("drift");

        final String text;

        Status(String text) {
            this.text = text;
        }
    }

    Status status(double psi) {
        if (psi >= drift) {
            return Status.DRIFT;
        }
        return psi >= possibleDrift ? Status.POSSIBLE_DRIFT : Status.NO_DRIFT;
    }
}
