//! The clock plugin as a library that a host loads.
jackfield_plugin_api::export_plugin!(jackfield_plugin_clock::Clock);
