"""The fleet in the words of others: Home Assistant and Sparkplug B."""
