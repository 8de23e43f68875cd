"""Who works: worker processes, pools of them, and who watches them."""
