"""Who a sender is, and how much it may send."""
