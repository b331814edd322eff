"""The sidecar killed again and again under load: nothing acknowledged is lost, nothing counts twice."""
