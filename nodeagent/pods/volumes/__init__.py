"""A pod's volumes: what is in them (content), how files change atomically (writer), where they are (manager)."""
