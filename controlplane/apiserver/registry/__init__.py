"""How resources are created, changed, deleted, listed and watched; what is special about some of them."""
