"""The data contract: pandera schemas that validate every block and that GetSchema serves."""
