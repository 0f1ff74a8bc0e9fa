"""The stores: one module or folder for each, named after its technology; none knows another."""
