"""MIL heads: instances and a mask in, bag logits and attention out."""
