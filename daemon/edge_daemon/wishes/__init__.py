"""What is wanted of each model now: somebody's word, the schedules that apply, and the wishes of its apps. Pure."""
