"""The published study of asymmetric sub-policies, run with this library."""
