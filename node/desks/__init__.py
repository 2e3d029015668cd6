"""What a node answers when somebody asks: one desk a subject, all behind `desk.Desk`, the API's door.

None changes anything but `transactions`, which takes new ones. A desk reads one view of the state an answer.
"""
