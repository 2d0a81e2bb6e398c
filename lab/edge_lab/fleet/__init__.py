"""A fleet that is only played: thousands of devices that a hub cannot tell from real ones. `edge hub simulate`."""
