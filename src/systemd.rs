//! Ready, watchdog, stopping: does nothing without the feature of this name.
